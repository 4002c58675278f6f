{{- /*
The permissions of one user of the NATS server, as JSON: fromJson (include "botplatform.permissions" (dict "root" $ "user" "signals")).
They come from files/permissions.json, which `python -m botplatform.docs.chart` makes of what the engines declare; there,
{stream} stands for config.bus.stream, and a subject with {partition} is repeated for each of config.bus.partitions.
Users: the engines by their names in the settings (market_data, not market-data), setup, operator, venue, probe, tap.
*/ -}}
{{- define "botplatform.permissions" -}}
{{- $bus := (.root.Values.config | default dict).bus | default dict -}}
{{- $partitions := int ($bus.partitions | default 16) -}}
{{- $users := .root.Files.Get "files/permissions.json" | replace "{stream}" ($bus.stream | default "EVENTS") | fromJson -}}
{{- $found := required (printf "files/permissions.json has no user %s" .user) (get $users .user) -}}
{{- range $verb := list "publish" "subscribe" -}}
{{- $rule := get $found $verb -}}
{{- if $rule.allow -}}
{{- $allow := list -}}
{{- range $subject := $rule.allow -}}
{{- if contains "{partition}" $subject -}}
{{- range $number := until $partitions -}}
{{- $allow = append $allow (replace "{partition}" (toString $number) $subject) -}}
{{- end -}}
{{- else -}}
{{- $allow = append $allow $subject -}}
{{- end -}}
{{- end -}}
{{- $_ := set $rule "allow" $allow -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}
