{{- /*
One Deployment of the platform's image with what belongs to it: an engine, the venue or the janitor.
A dict of root, component (its name), user (of NATS), args, and settings: `defaults` and what the component says itself.
*/ -}}

{{- /* The settings of a component: include "botplatform.merged" (dict "root" $ "component" "venue" "settings" .Values.venue)
       | fromYaml. Storage has no volume where the event store is in a database. */ -}}
{{- define "botplatform.merged" -}}
{{- $found := mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy (.settings | default dict)) -}}
{{- if include "botplatform.storesElsewhere" . -}}
{{- $_ := set $found.persistence "enabled" false -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{- /* Not empty for storage where the event store is in a database: a dict of root and component. */ -}}
{{- define "botplatform.storesElsewhere" -}}
{{- if and .root.Values.database.existingSecret (eq (.component | default "") "storage") -}}yes{{- end -}}
{{- end -}}

{{- /* Not empty for what speaks to the database of the event store: a dict of root and component. */ -}}
{{- define "botplatform.usesDatabase" -}}
{{- if and .root.Values.database.existingSecret (has (.component | default "") (list "storage" "setup")) -}}yes{{- end -}}
{{- end -}}

{{- /* What a container of the platform's image needs to find its settings and NATS: a dict of root and user. */ -}}
{{- define "botplatform.env" -}}
{{- $auth := include "botplatform.natsAuth" .root -}}
- name: BOTPLATFORM_CONFIG
  value: /etc/botplatform/botplatform.yaml
{{- /* Whatever command runs in the pod: its user may listen to these answers. */}}
- name: BOTPLATFORM_NATS__INBOX_PREFIX
  value: _INBOX_{{ .user }}
{{- if eq $auth "password" }}
- name: BOTPLATFORM_NATS__USER
  value: {{ .user }}
- name: BOTPLATFORM_NATS__PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "botplatform.natsSecret" .root }}
      key: {{ .user }}
{{- else if eq $auth "credentials" }}
- name: BOTPLATFORM_NATS__CREDENTIALS_FILE
  value: /etc/nats-user/{{ .user }}.creds
{{- else if eq $auth "nkey" }}
- name: BOTPLATFORM_NATS__NKEY_SEED_FILE
  value: /etc/nats-user/{{ .user }}.nk
{{- end }}
{{- if include "botplatform.usesDatabase" . }}
- name: BOTPLATFORM_STORAGE__URL
  valueFrom:
    secretKeyRef:
      name: {{ .root.Values.database.existingSecret }}
      key: {{ .root.Values.database.key }}
{{- if .root.Values.database.tlsSecret }}
{{- /* What the client takes where the address says nothing else. */}}
- name: PGSSLMODE
  value: verify-full
- name: PGSSLROOTCERT
  value: /etc/database-tls/ca.crt
{{- end }}
{{- end }}
{{- if include "botplatform.natsTlsSecret" .root }}
- name: BOTPLATFORM_NATS__TLS_REQUIRED
  value: "true"
- name: BOTPLATFORM_NATS__TLS_CA_FILE
  value: /etc/nats-tls/ca.crt
{{- if and (not .root.Values.nats.enabled) .root.Values.nats.external.tlsClientCertificate }}
- name: BOTPLATFORM_NATS__TLS_CERT_FILE
  value: /etc/nats-tls/tls.crt
- name: BOTPLATFORM_NATS__TLS_KEY_FILE
  value: /etc/nats-tls/tls.key
{{- end }}
{{- end }}
{{- end -}}

{{- /* Where such a container mounts what it needs: a dict of root. */ -}}
{{- define "botplatform.volumeMounts" -}}
- {name: settings, mountPath: /etc/botplatform, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if has (include "botplatform.natsAuth" .root) (list "credentials" "nkey") }}
- {name: nats-user, mountPath: /etc/nats-user, readOnly: true}
{{- end }}
{{- if and (include "botplatform.usesDatabase" .) .root.Values.database.tlsSecret }}
- {name: database-tls, mountPath: /etc/database-tls, readOnly: true}
{{- end }}
{{- if include "botplatform.natsTlsSecret" .root }}
- {name: nats-tls, mountPath: /etc/nats-tls, readOnly: true}
{{- end }}
{{- end -}}

{{- /* The volumes of those mounts: a dict of root and user. */ -}}
{{- define "botplatform.volumes" -}}
{{- $auth := include "botplatform.natsAuth" .root -}}
- name: settings
  configMap:
    name: {{ include "botplatform.name" (dict "root" .root "component" "settings") }}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if has $auth (list "credentials" "nkey") }}
{{- $file := printf "%s.%s" .user (ternary "creds" "nk" (eq $auth "credentials")) }}
- name: nats-user
  secret:
    secretName: {{ include "botplatform.natsSecret" .root }}
    items: [{key: {{ $file }}, path: {{ $file }}}]
{{- end }}
{{- if and (include "botplatform.usesDatabase" .) .root.Values.database.tlsSecret }}
- name: database-tls
  secret:
    secretName: {{ .root.Values.database.tlsSecret }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- with include "botplatform.natsTlsSecret" .root }}
- name: nats-tls
  secret:
    secretName: {{ . }}
    {{- if $.root.Values.nats.enabled }}
    items: [{key: ca.crt, path: ca.crt}]
    {{- end }}
{{- end }}
{{- end -}}

{{- /* The Secret with the secret settings of a component, empty for none. */ -}}
{{- define "botplatform.settingsSecret" -}}
{{- if .settings.existingSecretSettings -}}
{{- .settings.existingSecretSettings -}}
{{- else if .settings.secretSettings -}}
{{- include "botplatform.name" . -}}
{{- end -}}
{{- end -}}

{{- define "botplatform.deployment" -}}
{{- $s := .settings -}}
{{- $secret := include "botplatform.settingsSecret" . -}}
{{- $scaled := and $s.autoscaling (ne .root.Values.autoscaling.kind "none") (($s.autoscaling | default dict).enabled) -}}
{{- $rolls := dict "checksum/settings" (include "botplatform.settings" .root | sha256sum) -}}
{{- if $s.secretSettings -}}
{{- $_ := set $rolls "checksum/secret-settings" (toYaml $s.secretSettings | sha256sum) -}}
{{- end -}}
{{- with include "botplatform.secretsDigest" (dict "root" .root "reads" (include "botplatform.secretsRead" . | fromJsonArray)) -}}
{{- $_ := set $rolls "checksum/secrets" . -}}
{{- end -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "botplatform.metadata" (merge (dict "annotations" $s.annotations) .) | nindent 2 }}
spec:
  {{- if not $scaled }}
  replicas: {{ $s.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    {{- /* Also without a volume there is one venue at a time: two would answer the same orders, each from its own book. */}}
    {{- if or $s.persistence.enabled (eq .component "venue") (eq $s.strategy.type "Recreate") }}
    type: Recreate
    {{- else }}
    {{- toYaml $s.strategy | nindent 4 }}
    {{- end }}
  selector:
    matchLabels:
      {{- include "botplatform.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      {{- include "botplatform.podMetadata" (merge (dict "annotations" $rolls) .) | nindent 6 }}
    spec:
      {{- include "botplatform.podSpec" . | nindent 6 }}
      {{- include "botplatform.spread" . | nindent 6 }}
      terminationGracePeriodSeconds: {{ $s.terminationGracePeriodSeconds }}
      containers:
        - name: {{ .component }}
          image: {{ include "botplatform.image" (dict "root" .root "image" .root.Values.image) }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: {{ toJson .args }}
          securityContext:
            {{- toYaml .root.Values.containerSecurityContext | nindent 12 }}
          env:
            {{- include "botplatform.env" . | nindent 12 }}
            {{- include "botplatform.tracingEnv" . | nindent 12 }}
            {{- with $s.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- if or $secret $s.extraEnvFrom }}
          envFrom:
            {{- with $secret }}
            - secretRef: {name: {{ . }}}
            {{- end }}
            {{- with $s.extraEnvFrom }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- end }}
          ports:
            - {name: http, containerPort: {{ .root.Values.config.health.port }}, protocol: TCP}
          startupProbe:
            httpGet: {path: /startupz, port: http}
            {{- toYaml $s.startupProbe | nindent 12 }}
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            {{- toYaml $s.readinessProbe | nindent 12 }}
          livenessProbe:
            httpGet: {path: /livez, port: http}
            {{- toYaml $s.livenessProbe | nindent 12 }}
          resources:
            {{- toYaml $s.resources | nindent 12 }}
          volumeMounts:
            {{- include "botplatform.volumeMounts" . | nindent 12 }}
            - {name: data, mountPath: /data}
            {{- with $s.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        {{- include "botplatform.volumes" . | nindent 8 }}
        - name: data
          {{- if $s.persistence.enabled }}
          persistentVolumeClaim:
            claimName: {{ $s.persistence.existingClaim | default (include "botplatform.name" .) }}
          {{- else }}
          emptyDir: {sizeLimit: {{ ternary $s.persistence.size "64Mi" (and (has .component (list "storage" "venue")) (not (include "botplatform.storesElsewhere" .))) }}}
          {{- end }}
        {{- with $s.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end -}}

{{- define "botplatform.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "botplatform.metadata" . | nindent 2 }}
spec:
  type: ClusterIP
  selector:
    {{- include "botplatform.selectorLabels" . | nindent 4 }}
  ports:
    - {name: http, port: {{ .root.Values.config.health.port }}, targetPort: http, protocol: TCP, appProtocol: http}
{{- end -}}

{{- define "botplatform.claim" -}}
{{- $p := .settings.persistence -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "botplatform.metadata" (merge (dict "annotations" (ternary (dict "helm.sh/resource-policy" "keep") dict $p.keep)) .) | nindent 2 }}
spec:
  accessModes: {{ toJson $p.accessModes }}
  {{- with $p.storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ $p.size }}
{{- end -}}

{{- define "botplatform.secretSettings" -}}
apiVersion: v1
kind: Secret
metadata:
  {{- include "botplatform.metadata" . | nindent 2 }}
type: Opaque
stringData:
  {{- range $name, $value := .settings.secretSettings }}
  BOTPLATFORM_{{ $name | replace "." "__" }}: {{ $value | toString | quote }}
  {{- end }}
{{- end -}}

{{- /* All objects of a component. */ -}}
{{- define "botplatform.workload" -}}
{{- $s := .settings }}
---
{{ include "botplatform.deployment" . }}
---
{{ include "botplatform.service" . }}
{{- if $s.serviceAccount.create }}
---
{{ include "botplatform.serviceAccount" . }}
{{- end }}
{{- if $s.podDisruptionBudget.enabled }}
---
{{ include "botplatform.podDisruptionBudget" . }}
{{- end }}
{{- if and $s.persistence.enabled (not $s.persistence.existingClaim) }}
---
{{ include "botplatform.claim" . }}
{{- end }}
{{- if and $s.secretSettings (not $s.existingSecretSettings) }}
---
{{ include "botplatform.secretSettings" . }}
{{- end }}
{{- with include "botplatform.autoscaler" . }}
---
{{ . }}
{{- end }}
{{- end -}}
