{{- /* Most replicas that can share the work of an engine: a dict of root and component. */ -}}
{{- define "botplatform.shares" -}}
{{- $config := .root.Values.config -}}
{{- $partitions := int (($config.bus | default dict).partitions | default 16) -}}
{{- $feed := $config.feed | default dict -}}
{{- if ne .component "market-data" -}}
{{- $partitions -}}
{{- else if ne ($feed.kind | default "synthetic") "synthetic" -}}
1
{{- else -}}
{{- min $partitions (len ($config.symbols | default (list 1 2 3))) -}}
{{- end -}}
{{- end -}}

{{- /* What scales a component, empty for nothing: a dict of root, component and settings. */ -}}
{{- define "botplatform.autoscaler" -}}
{{- $a := .settings.autoscaling | default dict -}}
{{- $all := .root.Values.autoscaling -}}
{{- if and $a.enabled (eq $all.kind "hpa") -}}
{{ include "botplatform.hpa" . }}
{{- else if and $a.enabled (eq $all.kind "keda") -}}
{{ include "botplatform.scaledObject" . }}
{{- end -}}
{{- end -}}

{{- define "botplatform.hpa" -}}
{{- $a := .settings.autoscaling -}}
{{- $all := .root.Values.autoscaling -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- /* From hpa to keda, Helm makes the ScaledObject before it removes this one, and KEDA would refuse it. */}}
  {{- include "botplatform.metadata" (merge (dict "annotations" (dict "validations.keda.sh/hpa-ownership" "false")) .) | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "botplatform.name" . }}
  minReplicas: {{ $a.minReplicas }}
  maxReplicas: {{ max $a.minReplicas (min $a.maxReplicas (include "botplatform.shares" . | int)) }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $a.targetCPUUtilizationPercentage | default $all.targetCPUUtilizationPercentage }}
  behavior:
    {{- toYaml ($a.behavior | default $all.behavior) | nindent 4 }}
{{- end -}}

{{- /* By KEDA: on the lag that the engine tells for all of its replicas; the feed of market-data has none. */ -}}
{{- define "botplatform.scaledObject" -}}
{{- $a := .settings.autoscaling -}}
{{- $all := .root.Values.autoscaling -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "botplatform.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "botplatform.name" . }}
  minReplicaCount: {{ $a.minReplicas }}
  maxReplicaCount: {{ max $a.minReplicas (min $a.maxReplicas (include "botplatform.shares" . | int)) }}
  pollingInterval: {{ $all.pollingInterval }}
  {{- if ne .component "market-data" }}
  fallback:
    {{- toYaml $all.fallback | nindent 4 }}
  {{- end }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- toYaml ($a.behavior | default $all.behavior) | nindent 8 }}
  triggers:
    {{- if eq .component "market-data" }}
    - type: cpu
      metricType: Utilization
      metadata:
        value: {{ $a.targetCPUUtilizationPercentage | default $all.targetCPUUtilizationPercentage | quote }}
    {{- else }}
    - type: metrics-api
      metricType: AverageValue
      metadata:
        url: {{ printf "http://%s.%s.svc:%v/lag" (include "botplatform.name" .) .root.Release.Namespace .root.Values.config.health.port }}
        valueLocation: lag
        targetValue: {{ $a.targetLag | default $all.targetLag | quote }}
    {{- end }}
{{- end -}}
