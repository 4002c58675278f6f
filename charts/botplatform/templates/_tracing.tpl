{{- /* Where traces go, empty for nowhere. */ -}}
{{- define "botplatform.tracingEndpoint" -}}
{{- if .Values.tracing.endpoint -}}
{{- .Values.tracing.endpoint -}}
{{- else if .Values.jaeger.enabled -}}
{{- printf "http://%s.%s.svc:4318" (include "botplatform.name" (dict "root" . "component" "jaeger")) .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{- /* Variables of a container that traces: a dict of root. */ -}}
{{- define "botplatform.tracingEnv" -}}
{{- with include "botplatform.tracingEndpoint" .root -}}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . }}
{{- end -}}
{{- end -}}
