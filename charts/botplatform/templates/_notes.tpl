{{- define "botplatform.notes" -}}
{{- $ns := .Release.Namespace -}}
{{- $full := include "botplatform.fullname" . -}}
{{- $auth := include "botplatform.natsAuth" . -}}
{{- $secret := include "botplatform.natsSecret" . -}}
{{- $deployed := include "botplatform.deployed" . | fromJsonArray -}}
{{- $real := ne ((.Values.config.exchange | default dict).kind | default "paper") "paper_venue" -}}
botplatform {{ .Chart.AppVersion }} is installed as {{ .Release.Name }} in {{ $ns }}.
{{- if $deployed }}
All engines are ready when this ends (a minute or two):

  kubectl -n {{ $ns }} wait deployment --for=condition=Available --timeout=5m \
    --selector app.kubernetes.io/instance={{ .Release.Name }}
{{- end }}
{{- if .Values.test.enabled }}

Send a chain through every engine, without an order:

  helm test {{ .Release.Name }} --namespace {{ $ns }} --logs
{{- end }}

WATCH EVENTS{{ if .Values.nats.enabled }} with the nats CLI, as the user `tap`, who sees everything and can publish nothing:

  kubectl -n {{ $ns }} port-forward service/{{ $full }}-nats 4222:4222 &
{{- with .Values.nats.tls.existingSecret }}
  kubectl -n {{ $ns }} get secret {{ . }} -o jsonpath='{.data.ca\.crt}' | base64 -d >ca.crt
{{- end }}
  nats --server {{ ternary "tls" "nats" (not (empty .Values.nats.tls.existingSecret)) }}://127.0.0.1:4222{{ if .Values.nats.tls.existingSecret }} --tlsca ca.crt{{ end }} --user tap \
    --password "$(kubectl -n {{ $ns }} get secret {{ $secret }} -o jsonpath='{.data.tap}' | base64 -d)" \
    subscribe 'order.*' --translate 'botplatform events decode'
{{- else }} at {{ .Values.nats.external.url }}, as a user with the permissions of `botplatform permissions --engine tap`:

  nats --server {{ .Values.nats.external.url }} subscribe 'order.*' --translate 'botplatform events decode'
{{- end }}
{{- if has "janitor" $deployed }}
{{- if eq $auth "password" }}

As an operator, with kubectl alone:

  as_operator() {
    kubectl -n {{ $ns }} exec deployment/{{ $full }}-janitor -- env \
      BOTPLATFORM_NATS__USER=operator BOTPLATFORM_NATS__INBOX_PREFIX=_INBOX_operator \
      BOTPLATFORM_NATS__PASSWORD="$(kubectl -n {{ $ns }} get secret {{ $secret }} -o jsonpath='{.data.operator}' | base64 -d)" \
      botplatform "$@"
  }
  as_operator events tail 'order.*'
{{- else if eq $auth "none" }}

As an operator, with kubectl alone:

  as_operator() { kubectl -n {{ $ns }} exec deployment/{{ $full }}-janitor -- botplatform "$@"; }
  as_operator events tail 'order.*'
{{- else }}

As an operator, on a machine that reaches NATS and has the {{ $auth }} of the user `operator`:

  as_operator() { BOTPLATFORM_NATS__URL={{ .Values.nats.external.url }} \
    {{ ternary "BOTPLATFORM_NATS__CREDENTIALS_FILE=operator.creds" "BOTPLATFORM_NATS__NKEY_SEED_FILE=operator.nk" (eq $auth "credentials") }} \
    BOTPLATFORM_NATS__INBOX_PREFIX=_INBOX_operator botplatform "$@"; }
  as_operator events tail 'order.*'
{{- end }}

HALT TRADING; only cancels pass until it is resumed, and it survives restarts:

  as_operator halt --reason 'why'
  as_operator resume --reason 'why'
{{- end }}
{{- if has "storage" $deployed }}

FOLLOW A CHAIN from any of its ids, from tick to alert:

  kubectl -n {{ $ns }} exec deployment/{{ $full }}-storage -- botplatform trace ID
{{- end }}
{{- if and .Values.jaeger.enabled (not .Values.tracing.endpoint) }}

OPEN JAEGER, where the id of a trace is the correlation_id of the chain: http://127.0.0.1:16686

  kubectl -n {{ $ns }} port-forward service/{{ $full }}-jaeger 16686:16686
{{- else if .Values.tracing.endpoint }}

TRACES go to {{ .Values.tracing.endpoint }}.
{{- end }}
{{- if has "signals" $deployed }}

SCALE
{{- if eq .Values.autoscaling.kind "none" }} by hand:

  helm upgrade {{ .Release.Name }} charts/botplatform --namespace {{ $ns }} --reset-then-reuse-values \
    --set engines.signals.replicas=3
{{- else }}{{ if (.Values.engines.signals.autoscaling | default dict).enabled }}: engines do it themselves, {{ ternary "by their lag (KEDA)" "by their CPU" (eq .Values.autoscaling.kind "keda") }}. With a floor of your own:

  kubectl -n {{ $ns }} get hpa --selector app.kubernetes.io/instance={{ .Release.Name }}
  helm upgrade {{ .Release.Name }} charts/botplatform --namespace {{ $ns }} --reset-then-reuse-values \
    --set engines.signals.autoscaling.minReplicas=3
{{- else }} by hand:

  helm upgrade {{ .Release.Name }} charts/botplatform --namespace {{ $ns }} --reset-then-reuse-values \
    --set engines.signals.replicas=3
{{- end }}{{ end }}
{{- end }}

UNINSTALL with `helm uninstall {{ .Release.Name }} --namespace {{ $ns }}`. What stays, and an install of the same name takes up again:
{{- $kept := 0 }}
{{- if and .Values.nats.enabled .Values.nats.persistence.enabled }}
{{- $kept = 1 }}
  the log: {{ range $n := until (int .Values.nats.replicas) }}{{ if $n }}, {{ end }}persistentvolumeclaim/data-{{ $full }}-nats-{{ $n }}{{ end }}
{{- end }}
{{- with .Values.database.existingSecret }}
{{- $kept = 1 }}
  the event store and the journal: the database of the Secret {{ . }}, which a new log needs empty
{{- end }}
{{- range $component := list "storage" "venue" }}
{{- if has $component $deployed }}
{{- $own := get $.Values.engines $component | default (get $.Values $component) }}
{{- $p := (include "botplatform.merged" (dict "root" $ "component" $component "settings" $own) | fromYaml).persistence }}
{{- if and $p.enabled $p.existingClaim }}
{{- $kept = 1 }}
  {{ ternary "the event store and the journal" "the book of the paper venue" (eq $component "storage") }}: persistentvolumeclaim/{{ $p.existingClaim }}
{{- else if and $p.enabled $p.keep }}
{{- $kept = 1 }}
  {{ ternary "the event store and the journal" "the book of the paper venue" (eq $component "storage") }}: persistentvolumeclaim/{{ $full }}-{{ $component }}
{{- end }}
{{- end }}
{{- end }}
{{- if not .Values.nats.enabled }}
{{- $kept = 1 }}
  the streams and buckets at {{ .Values.nats.external.url }}
{{- end }}
{{- if not $kept }}
  nothing: no volume is kept.
{{- end }}
{{- if .Values.test.enabled }}
The finished pod of `helm test` stays as well: kubectl -n {{ $ns }} delete pod {{ $full }}-test --ignore-not-found
{{- end }}
{{- if $real }}

The venue is {{ (.Values.config.exchange | default dict).kind | default "paper" }}. Orders go to it as soon as execution is ready.
{{- end }}
{{- end -}}
