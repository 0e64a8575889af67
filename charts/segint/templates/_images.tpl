{{/* An image's reference, of (root, image, tag: what an empty tag means). */}}
{{- define "segint.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry -}}
{{- $name := .image.repository -}}
{{- if $registry }}{{ $name = printf "%s/%s" (trimSuffix "/" $registry) $name }}{{ end -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ .image.tag | default .tag }}
{{- end -}}
{{- end }}

{{- define "segint.apiImage" -}}
{{ include "segint.image" (dict "root" . "image" .Values.api.image "tag" .Chart.AppVersion) }}
{{- end }}

{{/* Of (root, pool). */}}
{{- define "segint.workerImage" -}}
{{- $tag := printf "%s-%s" .root.Chart.AppVersion (ternary "cuda" "cpu" .pool.gpu.enabled) -}}
{{ include "segint.image" (dict "root" .root "image" .pool.image "tag" $tag) }}
{{- end }}

{{- define "segint.pullSecrets" -}}
{{- with concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
