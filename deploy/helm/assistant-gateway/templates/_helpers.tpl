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
{{- else }}{{ fail (printf "state resilience.total (%s) in seconds: --set total=600" $stated) }}
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
