{{/*
Names and labels. Every name is the release's with one word behind it (a pool's has two), so that two releases in one
namespace have none in common; the schema keeps pools from being called as another component is.
*/}}
{{- define "segint.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "segint.labels" -}}
{{ include "segint.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{/* metadata of (root, component, and where it has some: annotations, and labels, which go before the chart's own) */}}
{{- define "segint.metadata" -}}
name: {{ .root.Release.Name }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- mergeOverwrite (include "segint.labels" . | fromYaml) (deepCopy (.labels | default dict)) | toYaml | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The workers' components, as a list in JSON. */}}
{{- define "segint.workerComponents" -}}
{{- $components := list -}}
{{- range .Values.workers }}{{ $components = append $components (printf "worker-%s" .name) }}{{ end -}}
{{- toJson $components -}}
{{- end }}

{{/* A pod selector for the workers of every pool. */}}
{{- define "segint.workerSelector" -}}
matchLabels:
  app.kubernetes.io/name: {{ .Chart.Name }}
  app.kubernetes.io/instance: {{ .Release.Name | quote }}
matchExpressions:
  - {key: app.kubernetes.io/component, operator: In, values: {{ include "segint.workerComponents" . }}}
{{- end }}
