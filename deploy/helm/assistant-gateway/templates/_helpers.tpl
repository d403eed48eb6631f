{{- define "gateway.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "gateway.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "gateway.configMap" -}}
{{- .Values.existingConfigMap | default (printf "%s-config" (include "gateway.name" .)) }}
{{- end }}

{{/* The configuration as values, or an empty mapping if it is in a ConfigMap of the operator. */}}
{{- define "gateway.config" -}}
{{- if .Values.existingConfigMap }}{}{{ else }}
{{- $config := .Values.config | fromYaml }}
{{- if hasKey $config "Error" }}{{ fail (printf "`config` is not valid YAML: %v" $config.Error) }}{{ end }}
{{- $config | toJson }}
{{- end }}
{{- end }}

{{/* "true" if the instances share stores. */}}
{{- define "gateway.hasStores" -}}
{{- if kindIs "bool" .Values.stores }}{{ if .Values.stores }}true{{ end }}
{{- else if .Values.existingConfigMap }}{{ fail "with existingConfigMap, state whether the configuration has `stores`: --set stores=true" }}
{{- else if (include "gateway.config" . | fromJson).stores }}true{{ end }}
{{- end }}

{{- define "gateway.kind" -}}
{{- if and (eq (include "gateway.hasStores" .) "true") .Values.persistence.enabled }}StatefulSet{{ else }}Deployment{{ end }}
{{- end }}

{{- define "gateway.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .Values.persistence.storageClass }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .Values.persistence.size }}}}
{{- end }}

{{- define "gateway.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "gateway.name" .) "" .Values.serviceAccount.create) }}
{{- end }}

{{/* OpenShift chooses the user and the group of a namespace itself, and refuses others. */}}
{{- define "gateway.podSecurity" -}}
runAsNonRoot: true
{{- if not .Values.openshift }}
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Seconds that a request may take: `resilience.total`, such as 600, 600s or 10m. */}}
{{- define "gateway.total" -}}
{{- $config := include "gateway.config" . | fromJson }}
{{- $stated := ($config.resilience | default dict).total | default "600s" | toString }}
{{- if .Values.total }}{{ .Values.total }}
{{- else if regexMatch "^[0-9.]+h$" $stated }}{{ mulf (trimSuffix "h" $stated | float64) 3600 | ceil | int }}
{{- else if regexMatch "^[0-9.]+m$" $stated }}{{ mulf (trimSuffix "m" $stated | float64) 60 | ceil | int }}
{{- else if regexMatch "^[0-9.]+s?$" $stated }}{{ trimSuffix "s" $stated | float64 | ceil | int }}
{{- else if regexMatch "^[0-9.]+ms$" $stated }}1
{{- else }}{{ fail (printf "resilience.total (%s) cannot be read here: state its seconds as `total`" $stated) }}
{{- end }}
{{- end }}

{{- define "gateway.env" -}}
{{- $own := dict
  "GATEWAY_CONFIG" "/etc/gateway/gateway.yaml"
  "GATEWAY_HOST" "0.0.0.0"
  "GATEWAY_PORT" "8080"
  "GATEWAY_ADMIN_PORT" "8081"
  "GATEWAY_STATE_DIR" "/var/lib/gateway"
  "GATEWAY_LOG_FORMAT" "json"
  "GATEWAY_DRAIN_DELAY_S" (toString .Values.drainDelay)
  "GATEWAY_GRACE_S" (include "gateway.total" .)
  "GATEWAY_REQUIRE_STATE" (toString .Values.requireState)
}}
{{- if .Values.serviceMonitor.enabled }}{{ $_ := set $own "GATEWAY_ADMIN_HOST" "0.0.0.0" }}{{ end }}
{{- range $name, $value := mergeOverwrite $own .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
- name: GATEWAY_INSTANCE
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gateway.envFrom" -}}
{{- range .Values.secrets }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "gateway.mounts" -}}
- {name: config, mountPath: /etc/gateway, readOnly: true}
- {name: state, mountPath: /var/lib/gateway}
- {name: tmp, mountPath: /tmp}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gateway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "gateway.schemaPod" -}}
restartPolicy: Never
{{- with include "gateway.serviceAccount" . }}
serviceAccountName: {{ . }}
{{- end }}
automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
enableServiceLinks: false
securityContext: {{- include "gateway.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: db-upgrade
    image: {{ include "gateway.image" . | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command:
      - gateway
      - db
      - upgrade
      {{- with .Values.schema.user }}
      - --user
      - {{ . }}
      {{- end }}
      {{- if .Values.schema.passwordSecret.name }}
      - --password-file
      - /run/schema/{{ .Values.schema.passwordSecret.key }}
      {{- end }}
    env: {{- include "gateway.env" . | nindent 6 }}
    envFrom: {{- include "gateway.envFrom" . | nindent 6 }}
    resources: {{- toYaml .Values.resources | nindent 6 }}
    securityContext: {{- include "gateway.containerSecurity" . | nindent 6 }}
    volumeMounts:
      {{- include "gateway.mounts" . | nindent 6 }}
      {{- if .Values.schema.passwordSecret.name }}
      - {name: schema, mountPath: /run/schema, readOnly: true}
      {{- end }}
volumes:
  - name: config
    configMap: {name: {{ include "gateway.configMap" . }}}
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
  - name: state
    emptyDir: {sizeLimit: 64Mi}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- if .Values.schema.passwordSecret.name }}
  - name: schema
    secret: {secretName: {{ .Values.schema.passwordSecret.name }}}
  {{- end }}
{{- end }}

{{/* Values that would be ignored, or that contradict each other, are refused with the reason. */}}
{{- define "gateway.checks" -}}
{{- $v := .Values }}
{{- $stores := eq (include "gateway.hasStores" .) "true" }}
{{- $config := include "gateway.config" . | fromJson }}
{{- if not $v.existingConfigMap }}
{{- if not $config }}{{ fail "`config` is empty: --set-file config=gateway.yaml" }}{{ end }}
{{- if ne $stores (not (empty $config.stores)) }}{{ fail "`stores` contradicts `config`: leave it out" }}{{ end }}
{{- end }}
{{- if and $stores $v.persistence.existingClaim }}{{ fail "persistence.existingClaim is one volume, but with `stores` each pod has its own" }}{{ end }}
{{- if not (or $stores $v.persistence.enabled) }}{{ fail "without `stores` the gateway needs its volume: persistence.enabled=true" }}{{ end }}
{{- if and (or $v.schema.user $v.schema.passwordSecret.name) (not $stores) }}{{ fail "`schema` needs `stores` in the configuration" }}{{ end }}
{{- if ne (empty $v.schema.user) (empty $v.schema.passwordSecret.name) }}{{ fail "schema.user and schema.passwordSecret.name belong together" }}{{ end }}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) }}{{ fail "autoscaling.minReplicas is above maxReplicas" }}{{ end }}
{{- if and $v.networkPolicy.from (not (or $v.networkPolicy.enabled $v.serviceMonitor.enabled)) }}{{ fail "networkPolicy.from needs networkPolicy.enabled=true" }}{{ end }}
{{- $extra := list }}
{{- range $v.extraEnv }}{{ $extra = append $extra .name }}{{ end }}
{{- $chart := splitList " " "GATEWAY_CONFIG GATEWAY_PORT GATEWAY_ADMIN_PORT GATEWAY_STATE_DIR GATEWAY_INSTANCE GATEWAY_DRAIN_DELAY_S GATEWAY_GRACE_S GATEWAY_REQUIRE_STATE" }}
{{- range concat (keys $v.env) $extra }}
{{- if has . $chart }}{{ fail (printf "env: the chart sets %s" .) }}{{ end }}
{{- end }}
{{- range $name, $_ := $v.podLabels }}
{{- if regexMatch "^(app[.]kubernetes[.]io|helm[.]sh)/" $name }}{{ fail (printf "podLabels: the chart sets labels like %s" $name) }}{{ end }}
{{- end }}
{{- if hasKey $v.podAnnotations "checksum/config" }}{{ fail "podAnnotations: the chart sets checksum/config" }}{{ end }}
{{- range $name, $_ := $v.files }}
{{- if or (eq $name "gateway.yaml") (not (regexMatch "^[-._a-zA-Z0-9]+$" $name)) }}{{ fail (printf "files: %s cannot be the name of a file beside gateway.yaml" $name) }}{{ end }}
{{- end }}
{{- $volumes := list }}
{{- range $v.extraVolumes }}
{{- if has .name (list "config" "state" "tmp" "schema") }}{{ fail (printf "extraVolumes: the chart has a volume %s: choose another name" .name) }}{{ end }}
{{- $volumes = append $volumes .name }}
{{- end }}
{{- range $v.extraVolumeMounts }}
{{- if not (has .name $volumes) }}{{ fail (printf "extraVolumeMounts: extraVolumes has no volume %s" .name) }}{{ end }}
{{- if regexMatch "^/(etc/gateway|var/lib/gateway|tmp)(/|$)" .mountPath }}{{ fail (printf "extraVolumeMounts: the chart mounts %s: choose another directory" .mountPath) }}{{ end }}
{{- end }}
{{- end }}
