{{- /* The first part of every name, short enough for what comes behind it; long ones stay different from each other. */ -}}
{{- define "botplatform.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $full = default $full .Values.fullnameOverride | replace "." "-" -}}
{{- if gt (len $full) 40 -}}
{{- $full = printf "%s-%s" (trunc 33 $full | trimSuffix "-") (sha256sum $full | trunc 6) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{- /* The name of one component's objects: include "botplatform.name" (dict "root" $ "component" "signals"). */ -}}
{{- define "botplatform.name" -}}
{{- printf "%s-%s" (include "botplatform.fullname" .root) .component -}}
{{- end -}}

{{- /* What selects the pods of a component; never changes. */ -}}
{{- define "botplatform.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* Labels of a component's objects. */ -}}
{{- define "botplatform.labels" -}}
{{ include "botplatform.selectorLabels" . }}
app.kubernetes.io/part-of: botplatform
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Metadata of an object: a dict of root, component and, where wanted, name, namespace, labels, annotations. */ -}}
{{- define "botplatform.metadata" -}}
name: {{ .name | default (include "botplatform.name" .) }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "botplatform.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge dict (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Metadata of a component's pods: a dict of root, component, settings (podLabels, podAnnotations) and annotations. */ -}}
{{- define "botplatform.podMetadata" -}}
labels:
  {{- /* No versions: a new chart alone does not roll NATS. */}}
  {{- include "botplatform.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/part-of: botplatform
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .settings.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge dict (.annotations | default dict) (.settings.podAnnotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* An image: include "botplatform.image" (dict "root" $ "image" .Values.image). */ -}}
{{- define "botplatform.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion | toString) -}}
{{- end -}}
{{- end -}}

{{- /* What the pods of all components have alike, and where they run: a dict of root, component and settings. */ -}}
{{- define "botplatform.podSpec" -}}
{{- $account := .settings.serviceAccount | default dict -}}
serviceAccountName: {{ $account.name | default (ternary (include "botplatform.name" .) "default" ($account.create | default false)) }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat (.settings.tolerations | default list) (include "botplatform.nodeLost" . | fromJsonArray) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* How long a pod stays on a node that is lost, as JSON: what has a volume waits for that anyway, and whoever tolerates
       these taints himself is left alone. A dict of settings. */ -}}
{{- define "botplatform.nodeLost" -}}
{{- $found := list -}}
{{- if and .settings.nodeLostSeconds (not (.settings.persistence | default dict).enabled) -}}
{{- range $taint := list "node.kubernetes.io/not-ready" "node.kubernetes.io/unreachable" -}}
{{- $own := false -}}
{{- range $.settings.tolerations -}}
{{- $own = or $own (eq (.key | default "") $taint) (and (not .key) (eq (.operator | default "") "Exists")) -}}
{{- end -}}
{{- if not $own -}}
{{- $found = append $found (dict "key" $taint "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" (int $.settings.nodeLostSeconds)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- /* How the replicas of a component are spread: a dict of root, component and settings. */ -}}
{{- define "botplatform.spread" -}}
topologySpreadConstraints:
  {{- with .settings.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "botplatform.selectorLabels" $ | nindent 8 }}
  {{- end }}
  {{- end }}
{{- end -}}

{{- /* A PodDisruptionBudget: a dict of root, component and settings. */ -}}
{{- define "botplatform.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "botplatform.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .settings.podDisruptionBudget.maxUnavailable }}
  {{- /* A pod that is not ready has nothing to lose: it must not keep a node from being drained. */}}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "botplatform.selectorLabels" . | nindent 6 }}
{{- end -}}

{{- /* GOMEMLIMIT of a server: what is given, or 80 % of its limit of memory. A dict of settings. */ -}}
{{- define "botplatform.goMemLimit" -}}
{{- if .settings.goMemLimit -}}
{{- .settings.goMemLimit | quote -}}
{{- else if (.settings.resources.limits | default dict).memory -}}
{{- printf "%dMiB" (div (mul (include "botplatform.bytes" .settings.resources.limits.memory | int64) 8) 10485760) | quote -}}
{{- else -}}
"off"
{{- end -}}
{{- end -}}

{{- /* A ServiceAccount without a token: a dict of root, component and settings. */ -}}
{{- define "botplatform.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "botplatform.metadata" (merge (dict "annotations" .settings.serviceAccount.annotations) .) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}

{{- /* Address of the NATS server. */ -}}
{{- define "botplatform.natsUrl" -}}
{{- if .Values.nats.enabled -}}
{{- printf "%s://%s.%s.svc:4222" (ternary "tls" "nats" (not (empty .Values.nats.tls.existingSecret))) (include "botplatform.name" (dict "root" . "component" "nats")) .Release.Namespace -}}
{{- else -}}
{{- .Values.nats.external.url -}}
{{- end -}}
{{- end -}}

{{- /* How to authenticate to NATS: none, password, credentials or nkey. */ -}}
{{- define "botplatform.natsAuth" -}}
{{- ternary "password" .Values.nats.external.auth .Values.nats.enabled -}}
{{- end -}}

{{- /* The Secret with what each user of NATS authenticates with. */ -}}
{{- define "botplatform.natsSecret" -}}
{{- if .Values.nats.enabled -}}
{{- .Values.nats.auth.existingSecret | default (include "botplatform.name" (dict "root" . "component" "nats-users")) -}}
{{- else -}}
{{- .Values.nats.external.existingSecret -}}
{{- end -}}
{{- end -}}

{{- /* The Secret with the certificates of NATS, empty for none. */ -}}
{{- define "botplatform.natsTlsSecret" -}}
{{- ternary .Values.nats.tls.existingSecret .Values.nats.external.tlsSecret .Values.nats.enabled -}}
{{- end -}}

{{- /* The settings that pods mount, botplatform.yaml: those of the user, and those that the chart knows. */ -}}
{{- define "botplatform.settings" -}}
{{- $bus := .Values.config.bus | default dict -}}
{{- $replicas := $bus.replicas | default (ternary .Values.nats.replicas 1 .Values.nats.enabled) -}}
{{- $nats := dict "url" (include "botplatform.natsUrl" .) -}}
{{- $made := dict "bus" (dict "replicas" $replicas) "nats" $nats -}}
{{- $config := deepCopy .Values.config -}}
{{- if and .Values.database.existingSecret $config.storage -}}
{{- $_ := set $config "storage" (omit $config.storage "path") -}}
{{- end -}}
{{- mergeOverwrite $config $made | toYaml -}}
{{- end -}}
