{{/* Pods of Ray, for serving and for trainings. */}}

{{/* No version among them: a new cluster is started when something of it changes, and only then. */}}
{{- define "vlm.rayLabels" -}}
{{ include "vlm.selector" . }}
vlm-captioning/metrics: ray
{{- end }}

{{- define "vlm.rayChecksum" -}}
checksum/settings: {{ include "vlm.environment" . | sha256sum | quote }}
{{- end }}

{{/* GPUs and shared memory on top of a group's resources. */}}
{{- define "vlm.rayResources" -}}
{{- $resources := deepCopy .resources -}}
{{- if .gpus }}{{ $_ := set $resources.limits "nvidia.com/gpu" (.gpus | toString) }}{{ $_ := set $resources.requests "nvidia.com/gpu" (.gpus | toString) }}{{ end -}}
{{ toYaml $resources }}
{{- end }}

{{/* Serving pods see of the shared volume only the request log. */}}
{{- define "vlm.servingContainer" -}}
image: {{ include "vlm.image" (list . "serving") | quote }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
securityContext: {{- include "vlm.containerSecurity" . | nindent 2 }}
envFrom: {{- include "vlm.envFrom" . | nindent 2 }}
env:
  - {name: VLM_API_KEYS_FILE, value: /app/api-keys/keys}
{{- if .Values.ray.haProxy }}
  - {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
{{- end }}
volumeMounts:
  - {name: temporary, mountPath: /tmp}
  - {name: shared-memory, mountPath: /dev/shm}
  - {name: shared, mountPath: /shared/request_log, subPath: request_log}
  - {name: api-keys, mountPath: /app/api-keys, readOnly: true}
{{- end }}

{{- define "vlm.servingVolumes" -}}
{{- $root := index . 0 -}}
- {name: temporary, emptyDir: {}}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ index . 1 | quote }}}
- name: shared
  persistentVolumeClaim: {claimName: {{ include "vlm.claim" $root | quote }}}
- name: api-keys
  secret:
    secretName: {{ $root.Values.secrets.apiKeys.name | quote }}
    defaultMode: 0440
    items: [{key: {{ $root.Values.secrets.apiKeys.fileKey | quote }}, path: keys}]
{{- end }}

{{- define "vlm.rayHeadPorts" -}}
- {name: gcs, containerPort: 6379}
- {name: dashboard, containerPort: 8265}
- {name: client, containerPort: 10001}
- {name: metrics, containerPort: 8080}
{{- end }}

{{- define "vlm.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "vlm.probe" -}}
httpGet: {path: {{ index . 0 }}, port: {{ index . 1 }}}
periodSeconds: {{ index . 2 }}
timeoutSeconds: 5
failureThreshold: {{ index . 3 }}
{{- end }}
