{{/* What the schema cannot see, because it is about several keys. Nothing where all is well. */}}
{{- define "segint.check" -}}
{{- if gt (len .Release.Name) 40 }}
{{- fail (printf "The release's name has %d characters, but at most 40 are allowed, because Kubernetes cuts longer names of pods and Jobs; choose a shorter one." (len .Release.Name)) }}
{{- end }}
{{- if not .Values.secrets.existingSecret }}
{{- fail "secrets.existingSecret is empty, but a Secret with the database's and Redis' addresses is needed. Make one: kubectl create secret generic segint --from-literal=SEGINT_DATABASE_URL=postgresql://… --from-literal=SEGINT_MIGRATION_DATABASE_URL=postgresql://… --from-literal=SEGINT_REDIS_URL=redis://… --from-literal=SEGINT_SESSION_SECRET=$(openssl rand -hex 32), and name it here." }}
{{- end }}
{{- include "segint.checkSettings" . }}
{{- include "segint.checkApi" . }}
{{- include "segint.checkWorkers" . }}
{{- if and .Values.migrations.hook .Values.postgresql.enabled }}
{{- fail "migrations.hook is true, but a hook runs before the evaluation PostgreSQL of postgresql.enabled is there; set one of them to false." }}
{{- end }}
{{- end }}

{{- define "segint.checkSettings" -}}
{{- with .Values.settings }}
{{- if gt (mulf 3 .heartbeatSeconds) (float64 .leaseSeconds) }}
{{- fail (printf "settings.heartbeatSeconds is %v, but a lease of %v s (settings.leaseSeconds) needs at least three heartbeats; lower the first or raise the second." .heartbeatSeconds .leaseSeconds) }}
{{- end }}
{{- if gt (mulf 6 .janitorIntervalSeconds) (float64 .leaseSeconds) }}
{{- fail (printf "settings.janitorIntervalSeconds is %v, but a lease of %v s (settings.leaseSeconds) needs at least six rounds; lower the first or raise the second." .janitorIntervalSeconds .leaseSeconds) }}
{{- end }}
{{- if le (float64 .orphanSeconds) (float64 .uploadLimitSeconds) }}
{{- fail (printf "settings.orphanSeconds is %v, but an upload may take settings.uploadLimitSeconds, %v s, and is no orphan until then; raise the first or lower the second." .orphanSeconds .uploadLimitSeconds) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "segint.checkApi" -}}
{{- with .Values.api }}
{{- if .autoscaling.enabled }}
{{- if gt (int64 .autoscaling.minReplicas) (int64 .autoscaling.maxReplicas) }}
{{- fail (printf "api.autoscaling.minReplicas is %v, more than api.autoscaling.maxReplicas, which is %v; lower the first or raise the second." .autoscaling.minReplicas .autoscaling.maxReplicas) }}
{{- end }}
{{- if not (dig "requests" "cpu" "" .resources) }}
{{- fail "api.autoscaling.enabled is true, but api.resources.requests.cpu, of which it counts percents, is missing; set it." }}
{{- end }}
{{- end }}
{{- include "segint.checkNames" (dict "key" "api" "on" .) }}
{{- end }}
{{- with .Values.ingress }}
{{- if and .enabled (not .host) }}
{{- fail "ingress.host is empty, but an Ingress needs the host name that clients use, such as segint.example.org; set it, or ingress.enabled to false." }}
{{- end }}
{{- if and .enabled .tls.enabled (not .tls.existingSecret) (not .tls.clusterIssuer) }}
{{- fail "ingress.tls.enabled is true, but there is no certificate; set ingress.tls.existingSecret, or ingress.tls.clusterIssuer for cert-manager." }}
{{- end }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs is empty, but an HTTPRoute belongs to a Gateway; name it as [{name: …, namespace: …}], or set httpRoute.enabled to false." }}
{{- end }}
{{- end }}

{{- define "segint.checkWorkers" -}}
{{- $names := list }}
{{- range .Values.workers }}
{{- $pool := include "segint.pool" (dict "root" $ "pool" .) | fromJson }}
{{- $key := printf "The pool «%s» of workers" .name }}
{{- if has .name $names }}
{{- fail (printf "workers has two pools named «%s»; give each its own name." .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- if and $pool.models $pool.exceptModels }}
{{- fail (printf "%s has both models and exceptModels; a pool claims either some models or all but some, so leave one of them empty." $key) }}
{{- end }}
{{- if gt (int64 $pool.autoscaling.minReplicas) (int64 $pool.autoscaling.maxReplicas) }}
{{- fail (printf "%s has autoscaling.minReplicas %v, more than its autoscaling.maxReplicas, which is %v; lower the first or raise the second." $key $pool.autoscaling.minReplicas $pool.autoscaling.maxReplicas) }}
{{- end }}
{{- include "segint.checkNames" (dict "key" $key "on" $pool) }}
{{- $settings := mergeOverwrite (deepCopy $.Values.settings) (deepCopy $pool.settings) }}
{{- with dig "limits" "memory" "" $pool.resources | include "segint.bytes" }}
{{- $need := add (int64 $settings.warmMemoryBytes) (include "segint.bytes" $pool.sharedMemorySizeLimit | int64) }}
{{- if le (int64 .) $need }}
{{- fail (printf "%s has resources.limits.memory of %s bytes, but models that stay loaded (settings.warmMemoryBytes) and sharedMemorySizeLimit may take %d bytes together, and jobs need some as well; raise the first or lower the others." $key . $need) }}
{{- end }}
{{- end }}
{{- with include "segint.bytes" $pool.temporarySizeLimit }}
{{- if lt (int64 .) (int64 $settings.modelScratchBytes) }}
{{- fail (printf "%s has temporarySizeLimit of %s bytes, but one model alone may write settings.modelScratchBytes, %d bytes, there; raise the first or lower the second." $key . (int64 $settings.modelScratchBytes)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Names that the chart gives itself, of (key, on). */}}
{{- define "segint.checkNames" -}}
{{- range $name, $_ := .on.extraEnv }}
{{- if hasPrefix "SEGINT_" $name }}
{{- fail (printf "%s.extraEnv has %s, but no name there may begin with SEGINT_; use the key of settings instead." $.key $name) }}
{{- end }}
{{- end }}
{{- if hasKey .on.podAnnotations "checksum/settings" }}
{{- fail (printf "%s.podAnnotations has checksum/settings, which is the chart's; use another annotation." .key) }}
{{- end }}
{{- range $name, $_ := .on.podLabels }}
{{- if has $name (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component") }}
{{- fail (printf "%s.podLabels has %s, which selects the pods and is the chart's; use another label." $.key $name) }}
{{- end }}
{{- end }}
{{- end }}
