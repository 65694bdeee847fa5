{{/* What the programs are told: environment, dagster.yaml, the Serve config. */}}

{{- define "vlm.postgresqlHost" -}}
{{ ternary (printf "%s-postgresql" (include "vlm.name" .)) .Values.postgresql.host .Values.postgresql.internal }}
{{- end }}

{{/* Of every pod of ours. */}}
{{- define "vlm.environment" -}}
HOME: /tmp
USER: vlm # the number has no name in the image
DO_NOT_TRACK: "true"
MLFLOW_DISABLE_TELEMETRY: "true"
MLFLOW_TRACKING_URI: {{ printf "http://%s-mlflow:5000" (include "vlm.name" .) | quote }}
RAY_AUTH_MODE: token
RAY_USAGE_STATS_ENABLED: "0"
TOKENIZERS_PARALLELISM: "false"
PYTHONUNBUFFERED: "1"
VLM_BUNDLE_CACHE: /tmp/bundles
VLM_REQUEST_LOG: /shared/request_log
{{- with .Values.store.s3Endpoint }}
AWS_ENDPOINT_URL: {{ . | quote }}
{{- end }}
{{- with .Values.store.region }}
AWS_DEFAULT_REGION: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Of Dagster's pods and of trainings besides. */}}
{{- define "vlm.dagsterEnvironment" -}}
DAGSTER_HOME: {{ .Values.dagster.home | quote }}
VLM_STORE: {{ .Values.store.uri | default "/shared/store" | quote }}
VLM_CACHE: /shared/cache
VLM_PRESET: {{ printf "%s/presets/%s.yaml" .Values.dagster.home .Values.dagster.preset | quote }}
VLM_SERVE_ADDRESS: {{ printf "http://%s-captioner-head-svc:8265" (include "vlm.name" .) | quote }}
VLM_SERVE_URL: {{ printf "http://%s-captioner-serve-svc:8000" (include "vlm.name" .) | quote }}
VLM_SERVE_FROM: registry # serving's pods do not see the store
{{- if .Values.training.rayJob }}
VLM_RAY_JOB: /app/ray-job/job.yaml
{{- end }}
{{- end }}

{{/* Secrets of Dagster's pods. */}}
{{- define "vlm.dagsterSecrets" -}}
{{- $s := .Values.secrets -}}
{{ include "vlm.secretEnv" (list "POSTGRES_PASSWORD" $s.postgresql.name $s.postgresql.passwordKey) }}
{{ include "vlm.secretEnv" (list "RAY_AUTH_TOKEN" $s.rayToken.name "auth_token") }}
{{ include "vlm.secretEnv" (list "VLM_API_KEY" $s.callerKey.name $s.callerKey.key) }}
{{- end }}

{{- define "vlm.dagsterVolumes" -}}
- name: temporary
  emptyDir: {}
- name: shared
  persistentVolumeClaim: {claimName: {{ include "vlm.claim" . | quote }}}
- name: instance
  configMap: {name: {{ printf "%s-dagster" (include "vlm.name" .) | quote }}}
{{- if .Values.training.rayJob }}
- name: ray-job
  configMap: {name: {{ printf "%s-ray-job" (include "vlm.name" .) | quote }}}
{{- end }}
{{- end }}

{{- define "vlm.dagsterMounts" -}}
- {name: temporary, mountPath: /tmp}
- {name: shared, mountPath: /shared}
- {name: instance, mountPath: {{ printf "%s/dagster.yaml" .Values.dagster.home | quote }}, subPath: dagster.yaml, readOnly: true}
{{- if .Values.training.rayJob }}
- {name: ray-job, mountPath: /app/ray-job, readOnly: true}
{{- end }}
{{- end }}

{{/* As dagster_home/dagster.yaml, with PostgreSQL for SQLite and a pod for each run. */}}
{{- define "vlm.dagsterYaml" -}}
storage:
  postgres:
    postgres_db:
      username: {{ .Values.postgresql.user | quote }}
      password: {env: POSTGRES_PASSWORD}
      hostname: {{ include "vlm.postgresqlHost" . | quote }}
      db_name: {{ .Values.postgresql.dagsterDatabase | quote }}
      port: {{ .Values.postgresql.port }}
run_launcher:
  module: dagster_k8s
  class: K8sRunLauncher
  config:
    job_namespace: {{ .Release.Namespace | quote }}
    service_account_name: {{ printf "%s-runs" (include "vlm.name" .) | quote }}
    load_incluster_config: true
    dagster_home: {{ .Values.dagster.home | quote }}
    instance_config_map: {{ printf "%s-dagster" (include "vlm.name" .) | quote }}
    image_pull_policy: {{ .Values.images.pullPolicy }}
{{- with .Values.images.pullSecrets }}
    image_pull_secrets: {{- range . }}
      - name: {{ . | quote }}
{{- end }}
{{- end }}
    fail_pod_on_run_failure: true
    run_k8s_config:
      container_config:
        env: {{- include "vlm.dagsterSecrets" . | nindent 10 }}
        env_from: {{- include "vlm.dagsterEnvFrom" . | nindent 10 }}
        volume_mounts: {{- include "vlm.dagsterMounts" . | nindent 10 }}
        resources: {{- toYaml .Values.dagster.runs.resources | nindent 10 }}
        security_context: {{- include "vlm.containerSecurity" . | nindent 10 }}
      pod_template_spec_metadata:
        labels: {{- include "vlm.selector" (list . "run") | nindent 10 }}
        annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: "false", karpenter.sh/do-not-disrupt: "true"}
      pod_spec_config:
        {{- with .Values.dagster.runs.nodeSelector }}
        node_selector: {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- with .Values.dagster.runs.tolerations }}
        tolerations: {{- toYaml . | nindent 10 }}
        {{- end }}
        volumes: {{- include "vlm.dagsterVolumes" . | nindent 10 }}
        enable_service_links: false
        security_context: {{- include "vlm.podSecurity" . | nindent 10 }}
      job_spec_config:
        ttl_seconds_after_finished: 86400
compute_logs:
  module: dagster._core.storage.local_compute_log_manager
  class: LocalComputeLogManager
  config: {base_dir: /shared/dagster/compute_logs}
local_artifact_storage:
  module: dagster._core.storage.root
  class: LocalArtifactStorage
  config: {base_dir: /shared/dagster}
concurrency:
  runs:
    max_concurrent_runs: {{ .Values.dagster.maxConcurrentRuns }}
    tag_concurrency_limits: [{key: dagster/backfill, limit: 1}]
  pools: {default_limit: 1, granularity: op}
run_monitoring:
  enabled: true
  start_timeout_seconds: 600
  cancel_timeout_seconds: 120
  max_runtime_seconds: 172800
  max_resume_run_attempts: 0
  free_slots_after_run_end_seconds: 60
run_retries: {enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}
telemetry: {enabled: false}
nux: {enabled: false}
{{- end }}

{{- define "vlm.dagsterEnvFrom" -}}
{{ include "vlm.envFrom" . }}
- configMapRef: {name: {{ printf "%s-dagster-environment" (include "vlm.name" .) | quote }}}
{{- end }}

{{/* deploy/serve.yaml, with the chart's settings. */}}
{{- define "vlm.serveConfig" -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
  request_timeout_s: {{ .Values.serve.requestTimeoutSeconds }}
applications:
  - name: captioner
    route_prefix: /
    import_path: vlm_serving.app:build_app
    args: {{- toYaml .Values.serve.settings | nindent 6 }}
    deployments:
      - name: Captioner
        user_config:
          bundle: {{ .Values.serve.bundle | quote }}
          wait_for_bundle: true # before the first one, replicas answer 503
{{- end }}
