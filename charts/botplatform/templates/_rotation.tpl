{{- /*
A digest of what a pod reads at its start from Secrets that the chart did not make, so that an upgrade rolls the pods whose
secrets are others by then; empty where Helm has no cluster to look at (helm template). A dict of root and reads, a list
of dicts of name and keys (none: all of the Secret).
*/ -}}
{{- define "botplatform.secretsDigest" -}}
{{- $found := list -}}
{{- range $read := .reads -}}
{{- $data := (lookup "v1" "Secret" $.root.Release.Namespace $read.name).data | default dict -}}
{{- range $key := $read.keys | default (keys $data | sortAlpha) -}}
{{- if hasKey $data $key -}}
{{- $found = append $found (printf "%s/%s=%s" $read.name $key (get $data $key)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $found -}}
{{- join "\n" $found | sha256sum -}}
{{- end -}}
{{- end -}}

{{- /* What a pod of the platform's image reads of such Secrets, as JSON: a dict of root, component, user and settings. */ -}}
{{- define "botplatform.secretsRead" -}}
{{- $nats := .root.Values.nats -}}
{{- $auth := include "botplatform.natsAuth" .root -}}
{{- $reads := list -}}
{{- with ternary $nats.auth.existingSecret $nats.external.existingSecret $nats.enabled -}}
{{- if ne $auth "none" -}}
{{- $key := get (dict "password" "%s" "credentials" "%s.creds" "nkey" "%s.nk") $auth -}}
{{- $reads = append $reads (dict "name" . "keys" (list (printf $key $.user))) -}}
{{- end -}}
{{- end -}}
{{- with include "botplatform.natsTlsSecret" .root -}}
{{- $reads = append $reads (dict "name" . "keys" (ternary (list "ca.crt") (list "ca.crt" "tls.crt" "tls.key") $nats.enabled)) -}}
{{- end -}}
{{- with .settings.existingSecretSettings -}}
{{- $reads = append $reads (dict "name" .) -}}
{{- end -}}
{{- if include "botplatform.usesDatabase" . -}}
{{- $database := .root.Values.database -}}
{{- $reads = append $reads (dict "name" $database.existingSecret "keys" (list $database.key)) -}}
{{- with $database.tlsSecret -}}
{{- $reads = append $reads (dict "name" . "keys" (list "ca.crt")) -}}
{{- end -}}
{{- end -}}
{{- toJson $reads -}}
{{- end -}}
