{{- define "budget-router.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "budget-router.labels" -}}
{{ include "budget-router.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Matchers of the release's series in Prometheus. */}}
{{- define "budget-router.series" -}}
{{ .Values.seriesSelector | default (printf "job=%q,namespace=%q" .Release.Name .Release.Namespace) }}
{{- end }}

{{/* A setting as text. Helm holds every number as a float, which Go writes as 6.7108864e+07 from a million on. */}}
{{- define "budget-router.plain" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ toString . }}{{ end -}}
{{- end }}

{{/* The source of the bundle's volume as JSON; nothing without one. */}}
{{- define "budget-router.bundle" -}}
{{- $b := .Values.bundle -}}
{{- $found := list -}}
{{- with $b.existingClaim }}{{ $found = append $found (dict "persistentVolumeClaim" (dict "claimName" .)) }}{{ end -}}
{{- with $b.claim.size }}{{ $found = append $found (dict "persistentVolumeClaim" (dict "claimName" (printf "%s-bundles" $.Release.Name))) }}{{ end -}}
{{- with $b.image }}{{ $found = append $found (dict "image" (dict "reference" .)) }}{{ end -}}
{{- with $b.volume }}{{ $found = append $found . }}{{ end -}}
{{- if gt (len $found) 1 }}{{ fail "bundle: name one of existingClaim, claim.size, image and volume" }}{{ end -}}
{{- if and $found (hasKey .Values.settings "ARTIFACT") }}{{ fail "settings.ARTIFACT: the bundle's volume says where it is; use bundle.path" }}{{ end -}}
{{- with first $found }}{{ toJson . }}{{ end -}}
{{- end }}

{{/* Refuses values that a schema cannot: what needs what. */}}
{{- define "budget-router.check" -}}
{{- $secret := .Values.secretSettings -}}
{{- range $name, $_ := .Values.settings }}
{{- if hasKey $secret $name }}{{ fail (printf "%s: in settings or in secretSettings, not in both" $name) }}{{ end }}
{{- end }}
{{- range list "REDIS_URL" "OUTCOMES_URL" }}
{{- if and (or (hasKey $.Values.settings .) (hasKey $secret .)) (not (hasKey $secret "CACHE_SECRET")) }}
{{- fail (printf "secretSettings.CACHE_SECRET: needed with %s, the same for all replicas" .) }}
{{- end }}
{{- end }}
{{- if and (not .Values.tenants.secret) (not (has "no-keys" .Values.public)) }}
{{- fail "tenants.secret: name the Secret of the tenants file, or add no-keys to public" }}
{{- end }}
{{- if and (not .Values.tls.secret) (not (has "plaintext" .Values.public)) }}
{{- fail "tls.secret: name the Secret of the certificate, or add plaintext to public" }}
{{- end }}
{{- if not (has "metrics" .Values.public) }}
{{- fail "public: needs metrics: the endpoint has neither TLS nor keys, and the network policy protects it" }}
{{- end }}
{{- if and .Values.prometheusRule.enabled (not .Values.prometheusRule.runbooks) }}
{{- fail "prometheusRule.runbooks: the URL of a folder with operations.md, which alerts link to" }}
{{- end }}
{{- end }}
