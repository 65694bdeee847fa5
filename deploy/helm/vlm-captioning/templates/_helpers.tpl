{{/* Names, labels, images and the security that every pod has. */}}

{{- define "vlm.name" -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $whole | trunc 36 | trimSuffix "-" -}}
{{- end }}

{{/* Labels that select; call with (list $ "component"). */}}
{{- define "vlm.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 | quote }}
{{- end }}

{{- define "vlm.labels" -}}
{{- $root := index . 0 -}}
{{ include "vlm.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | quote }}
{{- end }}

{{- define "vlm.metadata" -}}
{{- $root := index . 0 -}}
name: {{ printf "%s-%s" (include "vlm.name" $root) (index . 1) | quote }}
labels: {{- include "vlm.labels" . | nindent 2 }}
{{- end }}

{{/* Call with (list $ "serving"), or with (list $ map) for an image described elsewhere. */}}
{{- define "vlm.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if kindIs "string" $image }}{{ $image = index $root.Values.images $image }}{{ end -}}
{{- $registry := ternary (printf "%s/" $root.Values.images.registry) "" (and (ne $root.Values.images.registry "") (kindIs "string" (index . 1))) -}}
{{- $name := printf "%s%s" $registry $image.repository -}}
{{- if $image.digest }}{{ printf "%s@%s" $name $image.digest }}{{ else }}{{ printf "%s:%s" $name ($image.tag | default $root.Chart.AppVersion) }}{{ end -}}
{{- end }}

{{/* Labels that change when the pods must be started again because their settings changed. */}}
{{- define "vlm.checksums" -}}
checksum/settings: {{ list (include "vlm.environment" .) (include "vlm.dagsterYaml" .) (include "vlm.dagsterEnvironment" .) | join "\n" | sha256sum | quote }}
{{- end }}

{{- define "vlm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "vlm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Head of a pod's spec: account, secrets of the registry, priority, security. Call with (list $ "account" mountsToken). */}}
{{- define "vlm.podHead" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ printf "%s-%s" (include "vlm.name" $root) (index . 1) | quote }}
automountServiceAccountToken: {{ index . 2 }}
enableServiceLinks: false
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext: {{- include "vlm.podSecurity" $root | nindent 2 }}
{{- end }}

{{/* Pods of a component on different nodes and zones, where there are some. Call with (list $ "component"). */}}
{{- define "vlm.spread" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.topologySpread }}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "vlm.selector" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "vlm.claim" -}}
{{ .Values.shared.existingClaim | default (printf "%s-shared" (include "vlm.name" .)) }}
{{- end }}

{{- define "vlm.secretEnv" -}}
{{- $name := index . 0 -}}{{- $secret := index . 1 -}}{{- $key := index . 2 -}}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ $key | quote }}}}
{{- end }}

{{/* Where a pod's settings come from; S3 keys only if they are named. */}}
{{- define "vlm.envFrom" -}}
- configMapRef: {name: {{ printf "%s-environment" (include "vlm.name" .) | quote }}}
{{- with .Values.secrets.s3.name }}
- secretRef: {name: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* Faults that a schema cannot see, all at once. */}}
{{- define "vlm.check" -}}
{{- $faults := list -}}
{{- $v := .Values -}}
{{- if and $v.ray.haProxy (not $v.networkPolicy.enabled) }}
{{- $faults = append $faults "ray.haProxy opens ports 8404 and 9101 on all addresses, and networkPolicy.enabled is false: enable the policies, or leave HAProxy off." }}
{{- end }}
{{- if and $v.ray.gcsFaultTolerance.enabled (not $v.ray.gcsFaultTolerance.redisAddress) }}
{{- $faults = append $faults "ray.gcsFaultTolerance.enabled needs ray.gcsFaultTolerance.redisAddress, e.g. redis:6379." }}
{{- end }}
{{- if and (not $v.postgresql.internal) (not $v.postgresql.host) }}
{{- $faults = append $faults "postgresql.host is empty: name your server, or set postgresql.internal for a laptop." }}
{{- end }}
{{- range $name, $image := dict "images.serving" $v.images.serving "images.assets" $v.images.assets "postgresql.image" $v.postgresql.image }}
{{- if eq $image.tag "latest" }}
{{- $faults = append $faults (printf "%s.tag is latest: it names another image tomorrow. Name a version, or a digest." $name) }}
{{- end }}
{{- end }}
{{- range $name := list "captioner" "dagster" "mlflow" }}
{{- $site := index $v.ingress $name }}
{{- if and $site.host (not $site.tlsSecret) }}
{{- $faults = append $faults (printf "ingress.%s.host is %s without ingress.%s.tlsSecret: nothing is served without TLS." $name $site.host $name) }}
{{- end }}
{{- end }}
{{- range $name, $group := $v.ray.workerGroups }}
{{- if gt (int $group.minReplicas) (int $group.maxReplicas) }}
{{- $faults = append $faults (printf "ray.workerGroups.%s: minReplicas %d exceeds maxReplicas %d." $name (int $group.minReplicas) (int $group.maxReplicas)) }}
{{- end }}
{{- if and (not $v.ray.autoscaler.enabled) (lt (int $group.minReplicas) 1) }}
{{- $faults = append $faults (printf "ray.workerGroups.%s: minReplicas is 0 and ray.autoscaler.enabled is false: it would never get a pod." $name) }}
{{- end }}
{{- end }}
{{- if $faults }}{{ fail (printf "\n- %s" ($faults | join "\n- ")) }}{{ end }}
{{- end }}
