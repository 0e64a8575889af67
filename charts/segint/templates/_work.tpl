{{/*
How much work there is for a pool, as one SQL statement: what its workers claim (services/core/db/pool_reach.py), and
what runs. Running jobs count, because a worker that is busy must not be taken away; and dry runs, which need one too.
*/}}
{{- define "segint.workQuery" -}}
{{- $open := printf "state IN ('queued', 'running')%s" (include "segint.poolCondition" .) -}}
SELECT (SELECT count(*) FROM segmentation_job w WHERE {{ $open }}) + (SELECT count(*) FROM model_check w WHERE {{ $open }})
{{- end }}

{{/* Which rows w are within the pool's reach. */}}
{{- define "segint.poolCondition" -}}
{{- with .models }} AND w.model_id IN ({{ include "segint.sqlTexts" . }}){{ end -}}
{{- with .exceptModels }} AND w.model_id NOT IN ({{ include "segint.sqlTexts" . }}){{ end -}}
{{- $beyond := list -}}
{{- with .runtimes }}{{ $beyond = append $beyond (printf "v.runtime NOT IN (%s)" (include "segint.sqlTexts" .)) }}{{ end -}}
{{- if not .gpu.enabled }}{{ $beyond = append $beyond "coalesce(v.options -> 'inference' ->> 'device', 'auto') LIKE 'cuda%'" }}{{ end -}}
{{- with $beyond }} AND NOT EXISTS (SELECT 1 FROM model_version v WHERE v.model_id = w.model_id AND ({{ join " OR " . }})){{ end -}}
{{- end }}

{{- define "segint.sqlTexts" -}}
{{- $texts := list -}}
{{- range . }}{{ $texts = append $texts (printf "'%s'" (replace "'" "''" .)) }}{{ end -}}
{{- join ", " $texts -}}
{{- end }}
