{{- /* The users of the built-in NATS, and the variable with the password of each. */ -}}
{{- define "botplatform.natsUsers" -}}
{{- .Files.Get "files/permissions.json" | fromJson | keys | sortAlpha | toJson -}}
{{- end -}}

{{- /* The variable of the server with a user's password. */ -}}
{{- define "botplatform.natsVariable" -}}
{{- printf "%s_PASSWORD" (upper .) -}}
{{- end -}}

{{- /* The configuration of the server; passwords come from its environment. */ -}}
{{- define "botplatform.natsConfig" -}}
{{- $nats := .Values.nats -}}
{{- $clustered := gt (int $nats.replicas) 1 -}}
# Not as an argument: the server would not read its configuration again.
server_name: $POD_NAME
listen: "0.0.0.0:4222"
http: "0.0.0.0:8222"
pid_file: "/var/run/nats/nats.pid"
# A checkpoint of an engine is one message.
max_payload: 8MB
lame_duck_grace_period: "10s"
lame_duck_duration: "30s"
jetstream {
  store_dir: "/data"
  max_file_store: {{ $nats.maxFileStore }}
  max_memory_store: 64Mi
  sync_interval: {{ $nats.syncInterval | default (ternary "always" "1s" $clustered) }}
}
{{- if $nats.tls.existingSecret }}
tls {
  cert_file: "/etc/nats-tls/tls.crt"
  key_file: "/etc/nats-tls/tls.key"
  ca_file: "/etc/nats-tls/ca.crt"
}
{{- end }}
{{- if $clustered }}
cluster {
  name: {{ .Release.Name | quote }}
  listen: "0.0.0.0:6222"
  {{- if $nats.tls.existingSecret }}
  # Certificates are made for names, not for the addresses that servers would tell clients.
  no_advertise: true
  {{- end }}
  authorization { user: route, password: $ROUTE_PASSWORD }
  routes = [{{ range $n := until (int $nats.replicas) }}{{ if $n }}, {{ end }}$ROUTE_{{ $n }}{{ end }}]
}
{{- end }}
include "users.conf"
{{- with $nats.extraConfig }}
{{ . }}
{{- end }}
{{- end -}}

{{- /* Its accounts and users, which it reads again when they change. */ -}}
{{- define "botplatform.natsUsersConfig" -}}
system_account: SYS
accounts {
  SYS { users = [ { user: sys, password: $SYS_PASSWORD } ] }
  BOT {
    jetstream: enabled
    users = [
      {{- range $user := include "botplatform.natsUsers" . | fromJsonArray }}
      {
        user: {{ $user }}, password: ${{ include "botplatform.natsVariable" $user }}
        permissions {
          {{- $allowed := include "botplatform.permissions" (dict "root" $ "user" $user) | fromJson }}
          {{- range $verb := list "publish" "subscribe" }}
          {{- $rule := get $allowed $verb }}
          {{- if $rule.allow }}
          {{ $verb }}: { allow: [
            {{- range $rule.allow }}
            {{ quote . }}
            {{- end }}
          ] }
          {{- else }}
          {{ $verb }}: { deny: ">" }
          {{- end }}
          {{- end }}
          {{- if $allowed.allow_responses }}
          allow_responses: true
          {{- end }}
        }
      }
      {{- end }}
    ]
  }
}
{{- end -}}
