{{/* A value as the services read it from a variable, as a JSON string. Helm's numbers are floating-point: 1e+09. */}}
{{- define "segint.text" -}}
{{- if kindIs "slice" . -}}
{{ join "," . | toJson }}
{{- else if and (kindIs "float64" .) (eq (float64 (int64 .)) .) -}}
{{ printf "%d" (int64 .) | toJson }}
{{- else -}}
{{ toString . | toJson }}
{{- end -}}
{{- end }}

{{/*
Variables of (root, settings: those of `settings`, a pool's over them): a name is the setting's own in the services.
*/}}
{{- define "segint.settings" -}}
{{- range $key, $value := .settings }}
SEGINT_{{ $key | snakecase | upper }}: {{ include "segint.text" $value }}
{{- end }}
SEGINT_VOLUME_DIR: {{ include "segint.volumeDir" .root }}
SEGINT_REDIS_NAMESPACE: {{ printf "segint:%s:%s" .root.Release.Namespace .root.Release.Name | quote }}
{{- end }}

{{/* `settings` with the public URL filled in, in JSON. */}}
{{- define "segint.allSettings" -}}
{{- $settings := deepCopy .Values.settings -}}
{{- if not $settings.publicUrl -}}
{{- if .Values.ingress.enabled -}}
{{- $_ := set $settings "publicUrl" (printf "%s://%s/" (ternary "https" "http" .Values.ingress.tls.enabled) .Values.ingress.host) -}}
{{- else if and .Values.httpRoute.enabled .Values.httpRoute.hostnames -}}
{{- $_ := set $settings "publicUrl" (printf "%s://%s/" (ternary "https" "http" .Values.httpRoute.tls) (first .Values.httpRoute.hostnames)) -}}
{{- end -}}
{{- end -}}
{{- toJson $settings -}}
{{- end }}

{{- define "segint.volumeDir" -}}
/var/lib/segint
{{- end }}

{{/* A pool with what it has of workerDefaults, in JSON, of (root, pool). */}}
{{- define "segint.pool" -}}
{{- mergeOverwrite (deepCopy .root.Values.workerDefaults) (deepCopy .pool) | toJson -}}
{{- end }}

{{/* Variables of a pool's workers, of (root, pool). */}}
{{- define "segint.poolSettings" -}}
{{- $settings := mergeOverwrite (include "segint.allSettings" .root | fromJson) (deepCopy .pool.settings) -}}
{{- include "segint.settings" (dict "root" .root "settings" $settings) }}
SEGINT_DRAIN_SECONDS: {{ include "segint.drainSeconds" $settings | quote }}
SEGINT_WORKER_METRICS_PORT: "9191"
SEGINT_HEARTBEAT_FILE: /tmp/segint-heartbeat
SEGINT_POOL_NAME: {{ .pool.name | quote }}
SEGINT_POOL_MODELS: {{ include "segint.text" .pool.models }}
SEGINT_POOL_EXCEPT_MODELS: {{ include "segint.text" .pool.exceptModels }}
SEGINT_POOL_RUNTIMES: {{ include "segint.text" .pool.runtimes }}
SEGINT_POOL_DEVICE: {{ ternary "cuda" "cpu" .pool.gpu.enabled }}
{{- end }}

{{/*
How a worker ends, all of it from the longest run of a model: that run and what comes after it fit the drain limit;
the worker's shutdown time-out is 15 s longer (services/worker/__main__.py, SHUTDOWN_MARGIN_SECONDS), and the pod's
grace period another 30 s.
*/}}
{{- define "segint.drainSeconds" -}}
{{ add (int64 .modelTimeLimitSeconds) 60 }}
{{- end }}
{{- define "segint.workerGraceSeconds" -}}
{{ add (include "segint.drainSeconds" . | int64) 15 30 }}
{{- end }}

{{/* How an API pod ends: it is forgotten by proxies, then the longest upload may finish, then it has 30 s to close. */}}
{{- define "segint.apiGraceSeconds" -}}
{{ add (int64 .Values.api.preStopSleepSeconds) (int64 .Values.settings.uploadLimitSeconds) 30 }}
{{- end }}

{{/* One variable from the Secret, of (root, name, key, optional). */}}
{{- define "segint.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .root.Values.secrets.existingSecret }}
      key: {{ .key }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end }}

{{- define "segint.databaseVariable" -}}
{{ include "segint.secretVariable" (dict "root" . "name" "SEGINT_DATABASE_URL" "key" .Values.secrets.keys.databaseUrl) }}
{{- end }}

{{/* Who owns the evaluation PostgreSQL's tables. The migrations make the role of databaseUrl. */}}
{{- define "segint.evaluationOwner" -}}
segint_owner
{{- end }}

{{- define "segint.redisVariable" -}}
{{ include "segint.secretVariable" (dict "root" . "name" "SEGINT_REDIS_URL" "key" .Values.secrets.keys.redisUrl) }}
{{- end }}

{{- define "segint.extraVariables" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ include "segint.text" $value }}
{{- end }}
{{- end }}

{{/* Bytes of a quantity such as 16Gi; nothing where it is written in another way, as 1.5Gi. */}}
{{- define "segint.bytes" -}}
{{- $quantity := toString . -}}
{{- if regexMatch "^[0-9]+([kMGT]|[KMGT]i)?$" $quantity -}}
{{- $number := regexFind "^[0-9]+" $quantity -}}
{{- $units := dict "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{ mul (int64 $number) (get $units (trimPrefix $number $quantity) | default 1 | int64) }}
{{- end -}}
{{- end }}
