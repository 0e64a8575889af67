{{/* What every pod has in common, of (root, component): PodSecurity «restricted», and nothing of Kubernetes'. */}}
{{- define "segint.podBasics" -}}
serviceAccountName: {{ .root.Release.Name }}-{{ .component }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- include "segint.pullSecrets" .root }}
{{- end }}

{{- define "segint.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.podSecurity }}
{{- if .runAsUser }}
runAsUser: {{ int64 .runAsUser }}
{{- end }}
{{- if .runAsGroup }}
runAsGroup: {{ int64 .runAsGroup }}
{{- end }}
{{- if .fsGroup }}
fsGroup: {{ int64 .fsGroup }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- with .supplementalGroups }}
supplementalGroups:
  {{- range . }}
  - {{ int64 . }}
  {{- end }}
{{- end }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "segint.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a pod may run, of (root, component, on: the values of the API or a pool). */}}
{{- define "segint.scheduling" -}}
{{- with .on.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .on.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .on.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .on.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $own := dict "labelSelector" (dict "matchLabels" (include "segint.selector" $ | fromYaml)) }}
  - {{- toYaml (mergeOverwrite $own .) | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .on.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* An init container that waits for the schema, of (root, image, pullPolicy). */}}
{{- define "segint.waitForSchema" -}}
- name: wait-for-schema
  image: {{ .image }}
  imagePullPolicy: {{ .pullPolicy }}
  command: [python, -m, migrations, wait, --limit-seconds, {{ .root.Values.migrations.waitLimitSeconds | int64 | quote }}]
  env:
    {{- include "segint.databaseVariable" .root | nindent 4 }}
  resources:
    {{- toYaml .root.Values.migrations.resources | nindent 4 }}
  securityContext:
    {{- include "segint.containerSecurityContext" . | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* How long a pod may wait for the schema: as long as the migration may take, and as long as it waits at one time. */}}
{{- define "segint.schemaSeconds" -}}
{{ max (int64 .Values.migrations.activeDeadlineSeconds) (int64 .Values.migrations.waitLimitSeconds) }}
{{- end }}

{{/* How long a pod of the API may take until it is ready: it waits for the schema, then has its start-up probe's 120 s. */}}
{{- define "segint.apiDeadlineSeconds" -}}
{{ add (include "segint.schemaSeconds" . | int64) 120 300 }}
{{- end }}

{{- define "segint.claimName" -}}
{{ .Values.volume.existingClaim | default (printf "%s-volume" .Release.Name) }}
{{- end }}

{{/* `storageClassName` of a claim: empty leaves it to the cluster, - says that there is none. */}}
{{- define "segint.storageClass" -}}
{{- if eq . "-" }}
storageClassName: ""
{{- else if . }}
storageClassName: {{ . }}
{{- end }}
{{- end }}
