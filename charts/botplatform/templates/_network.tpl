{{- /* Every component of the platform's image that runs all the time, as JSON. */ -}}
{{- define "botplatform.deployed" -}}
{{- $found := list -}}
{{- range $component, $own := merge (dict "venue" .Values.venue "janitor" .Values.janitor) .Values.engines -}}
{{- $settings := include "botplatform.merged" (dict "root" $ "component" $component "settings" $own) | fromYaml -}}
{{- if $settings.enabled -}}
{{- $found = append $found $component -}}
{{- end -}}
{{- end -}}
{{- toJson ($found | sortAlpha) -}}
{{- end -}}

{{- /* A NetworkPolicy's head: a dict of root, component, and the components that it is for (none: all pods of the release). */ -}}
{{- define "botplatform.networkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "botplatform.metadata" . | nindent 2 }}
spec:
  podSelector:
    {{- include "botplatform.podsOf" . | nindent 4 }}
{{- end -}}

{{- /* A selector of pods of the release: a dict of root and components (none: all). */ -}}
{{- define "botplatform.podsOf" -}}
matchLabels:
  app.kubernetes.io/name: {{ .root.Chart.Name }}
  app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .components }}
matchExpressions:
  - {key: app.kubernetes.io/component, operator: In, values: {{ toJson . }}}
{{- end }}
{{- end -}}

{{- /* The ports of addresses such as nats://a:4222,tls://b: a dict of urls and default; as a list of ports of a policy. */ -}}
{{- define "botplatform.portsOf" -}}
{{- $ports := list -}}
{{- range $url := splitList "," .urls -}}
{{- $host := (urlParse (trim $url)).host -}}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" | default (ternary "443" $.default (hasPrefix "https:" $url)) -}}
{{- $ports = append $ports $port -}}
{{- end -}}
{{- range $port := $ports | uniq }}
- {port: {{ $port }}, protocol: TCP}
{{- end -}}
{{- end -}}
