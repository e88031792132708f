{{- /* Labels of everything. */ -}}
{{- define "mesh.labels" -}}
app.kubernetes.io/name: mesh-controller
app.kubernetes.io/part-of: mesh
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{- /* Labels that tell the controller's pods; they never change. */ -}}
{{- define "mesh.selector" -}}
app.kubernetes.io/name: mesh-controller
app.kubernetes.io/part-of: mesh
{{- end -}}

{{- /* Not empty where no node may have two replicas. One alone is kept apart from nothing but its successor. */ -}}
{{- define "mesh.apart" -}}
{{- if and (eq .Values.controller.antiAffinity "required") (gt (int .Values.controller.replicas) 1) -}}
true
{{- end -}}
{{- end -}}

{{- /* Labels of what writes firewall rules from the nodes. */ -}}
{{- define "mesh.cniLabels" -}}
app.kubernetes.io/name: mesh-cni
app.kubernetes.io/part-of: mesh
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{- /* Its containers write into directories of the node, whoever owns them. */ -}}
{{- define "mesh.cniSecurity" -}}
runAsUser: 0
runAsGroup: 0
runAsNonRoot: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
  add:
    - DAC_OVERRIDE
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "mesh.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- /* Namespaces of the system, whose pods are never injected. */ -}}
{{- define "mesh.notSystem" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values:
    - kube-system
    - {{ .Release.Namespace }}
{{- end -}}

{{- /* Defaults of injection, as the controller reads them (docs/install.md). */ -}}
{{- define "mesh.inject" -}}
proxyImage: {{ printf "%s/mesh-proxy:%s" .Values.image.repository (include "mesh.tag" .) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
logLevel: {{ .Values.proxy.logLevel | quote }}
nativeSidecars: {{ .Values.proxy.nativeSidecars | quote }}
controller: {{ printf "mesh-controller.%s.svc.%s:15010" .Release.Namespace .Values.clusterDomain | quote }}
trustDomain: {{ .Values.trustDomain | quote }}
clusterDomain: {{ .Values.clusterDomain | quote }}
cni: {{ .Values.cni.enabled }}
{{- with .Values.proxy.resources }}
resources: {{ toJson . }}
{{- end }}
skipOutboundPorts: {{ toJson .Values.proxy.skipOutboundPorts }}
skipInboundPorts: {{ toJson .Values.proxy.skipInboundPorts }}
skipOutboundCidrs: {{ toJson .Values.proxy.skipOutboundCidrs }}
{{- end -}}

{{- /* What both webhooks of injection have in common. */ -}}
{{- define "mesh.injector" -}}
clientConfig:
  service:
    name: mesh-controller
    namespace: {{ .Release.Namespace }}
    path: /inject
    port: 443
rules:
  - apiGroups:
      - ""
    apiVersions:
      - v1
    operations:
      - CREATE
    resources:
      - pods
    scope: Namespaced
failurePolicy: {{ .Values.webhooks.failurePolicy }}
matchPolicy: Equivalent
reinvocationPolicy: IfNeeded
sideEffects: NoneOnDryRun
admissionReviewVersions:
  - v1
timeoutSeconds: {{ int .Values.webhooks.timeoutSeconds }}
{{- end -}}
