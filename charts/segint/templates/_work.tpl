{{/* How much work there is for a pool, as one SQL statement (services/core/db/tables.py). */}}
{{- define "segint.workQuery" -}}
{{- $where := printf "state IN ('queued', 'running')%s" (include "segint.poolCondition" .) -}}
SELECT (SELECT count(*) FROM segmentation_job WHERE {{ $where }}) + (SELECT count(*) FROM model_check WHERE {{ $where }})
{{- end }}

{{- define "segint.poolCondition" -}}
{{- if .models }} AND model_id IN ({{ include "segint.sqlTexts" .models }})
{{- else if .exceptModels }} AND model_id NOT IN ({{ include "segint.sqlTexts" .exceptModels }})
{{- end -}}
{{- end }}

{{- define "segint.sqlTexts" -}}
{{- $texts := list -}}
{{- range . }}{{ $texts = append $texts (printf "'%s'" (replace "'" "''" .)) }}{{ end -}}
{{- join ", " $texts -}}
{{- end }}
