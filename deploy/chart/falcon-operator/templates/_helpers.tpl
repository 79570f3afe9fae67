{{- define "falcon-operator.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "falcon-operator.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "falcon-operator.name" .) }}
{{- end }}

{{- define "falcon-operator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "falcon-operator.labels" -}}
{{ include "falcon-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* image: (dict "image" .Values.image "root" .) */ -}}
{{- define "falcon-operator.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* What the operator does in the namespaces of the runs: exactly this, and never a Secret. */ -}}
{{- define "falcon-operator.rules" -}}
- apiGroups: [falcon-finetune.dev]
  resources: [falconfinetunes]
  verbs: [get, list, watch]
- apiGroups: [falcon-finetune.dev]
  resources: [falconfinetunes/status]
  verbs: [update]
- apiGroups: [falcon-finetune.dev]
  resources: [falconfinetunes/finalizers] # asked for by clusters that check blockOwnerDeletion
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs] # patched: suspend, and how long a finished one stays
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [pods] # deleted: what is left of a gang that lost a pod, where the Job controller does not see it
  verbs: [get, list, watch, delete]
- apiGroups: [""]
  resources: [events] # read: quota, admission and mount failures show nowhere else
  verbs: [get, list, create]
{{- end }}
