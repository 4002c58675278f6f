{{- /* Refuses values that contradict each other, with a sentence. What one value may be is in values.schema.json. */ -}}
{{- define "botplatform.validate" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "botplatform.fullname" .)) -}}
{{- fail (printf "%s cannot begin the names of Services: they are a letter, then letters, digits and dashes; set fullnameOverride" (include "botplatform.fullname" .)) -}}
{{- end -}}
{{- /* No kubeVersion in Chart.yaml: a Helm built from source takes v1.20.0 where it has no cluster to ask. */ -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- if and (semverCompare "<1.29.0-0" $version) (ne $version "v1.20.0") -}}
{{- fail (printf "Kubernetes is %s: the chart needs 1.29 or newer" $version) -}}
{{- end -}}
{{- include "botplatform.validateLabels" . -}}
{{- include "botplatform.validateSettings" . -}}
{{- include "botplatform.validateTracing" . -}}
{{- include "botplatform.validateNats" . -}}
{{- include "botplatform.validateDatabase" . -}}
{{- range $component, $own := .Values.engines -}}
{{- $settings := include "botplatform.merged" (dict "root" $ "component" $component "settings" $own) | fromYaml -}}
{{- include "botplatform.validateReplicas" (dict "root" $ "component" $component "key" (printf "engines.%s" $component) "settings" $settings) -}}
{{- end -}}
{{- range $component := list "venue" "janitor" -}}
{{- $settings := include "botplatform.merged" (dict "root" $ "settings" (get $.Values $component)) | fromYaml -}}
{{- include "botplatform.validateReplicas" (dict "root" $ "component" $component "key" $component "settings" $settings) -}}
{{- end -}}
{{- end -}}

{{- /* Pods are selected by labels of the chart's own. */ -}}
{{- define "botplatform.validateLabels" -}}
{{- $given := dict "commonLabels" .Values.commonLabels "defaults.podLabels" .Values.defaults.podLabels -}}
{{- range $component := list "venue" "janitor" "setup" "nats" "jaeger" "test" -}}
{{- $_ := set $given (printf "%s.podLabels" $component) (get $.Values $component).podLabels -}}
{{- end -}}
{{- range $component, $own := .Values.engines -}}
{{- $_ := set $given (printf "engines.%s.podLabels" $component) ($own | default dict).podLabels -}}
{{- end -}}
{{- range $key, $labels := $given -}}
{{- range $label := list "name" "instance" "component" "part-of" "version" "managed-by" -}}
{{- $label = printf "app.kubernetes.io/%s" $label -}}
{{- if and (hasKey ($labels | default dict) $label) (or (eq $key "commonLabels") (not (has $label (list "app.kubernetes.io/version" "app.kubernetes.io/managed-by")))) -}}
{{- fail (printf "%s has %s, which is the chart's own, by which pods are found: take it out, or set nameOverride" $key $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "botplatform.validateSettings" -}}
{{- $config := .Values.config -}}
{{- $nats := $config.nats | default dict -}}
{{- range $key := list "url" "user" "password" "nkey_seed_file" "credentials_file" "tls_ca_file" "inbox_prefix" -}}
{{- if get $nats $key -}}
{{- fail (printf "config.nats.%s is made by the chart: set nats.external.* for a server elsewhere" $key) -}}
{{- end -}}
{{- end -}}
{{- if or ($config.exchange | default dict).secrets ($config.notifications | default dict).channels -}}
{{- fail "config is kept in a ConfigMap, which is no place for secrets: give exchange.secrets.* and notifications.channels.* as engines.execution.secretSettings and engines.notifications.secretSettings" -}}
{{- end -}}
{{- if ne (($config.bus | default dict).backend | default "jetstream") "jetstream" -}}
{{- fail "config.bus.backend has to be jetstream: the other bus does not leave its process" -}}
{{- end -}}
{{- if not ($config.health | default dict).port -}}
{{- fail "config.health.port is missing: the probes need it, for example 8080" -}}
{{- end -}}
{{- $kind := ($config.exchange | default dict).kind | default "paper" -}}
{{- $venue := include "botplatform.merged" (dict "root" . "settings" .Values.venue) | fromYaml -}}
{{- if and (eq $kind "paper_venue") (not $venue.enabled) -}}
{{- fail "config.exchange.kind is paper_venue, but venue.enabled is false: nobody would answer orders; set config.exchange.kind to your exchange" -}}
{{- end -}}
{{- $market := include "botplatform.merged" (dict "root" . "component" "market-data" "settings" (get .Values.engines "market-data")) | fromYaml -}}
{{- if and (not (hasPrefix "paper" $kind)) (hasKey .Values.engines "market-data") $market.enabled (eq (($config.feed | default dict).kind | default "synthetic") "synthetic") -}}
{{- fail (printf "config.exchange.kind is %s, but config.feed.kind is synthetic: orders at a real venue would follow made-up prices; set engines.market-data.enabled to false and publish market.snapshot from a feed of your own, as the NATS user market_data" $kind) -}}
{{- end -}}
{{- end -}}

{{- /* A size as Kubernetes or the NATS server reads it, in bytes. */ -}}
{{- define "botplatform.bytes" -}}
{{- if kindIs "string" . -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexReplaceAll "^[0-9.]+" . "" | replace "B" "i" -}}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units $unit | float64) | int64 -}}
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end -}}

{{- define "botplatform.validateNats" -}}
{{- $nats := .Values.nats -}}
{{- $copies := int ((.Values.config.bus | default dict).replicas | default 1) -}}
{{- if $nats.enabled -}}
{{- if not (has (int $nats.replicas) (list 1 3)) -}}
{{- fail (printf "nats.replicas is %v: it has to be 1, or 3 for a cluster" $nats.replicas) -}}
{{- end -}}
{{- if gt $copies (int $nats.replicas) -}}
{{- fail (printf "config.bus.replicas is %d, but nats.replicas is %v: the log cannot have more copies than there are servers" $copies $nats.replicas) -}}
{{- end -}}
{{- $claim := printf "data-%s" (include "botplatform.name" (dict "root" . "component" "nats")) -}}
{{- $first := lookup "v1" "PersistentVolumeClaim" .Release.Namespace (printf "%s-0" $claim) -}}
{{- $third := lookup "v1" "PersistentVolumeClaim" .Release.Namespace (printf "%s-2" $claim) -}}
{{- if and $nats.persistence.enabled $first (ne (empty $third) (eq (int $nats.replicas) 1)) -}}
{{- fail (printf "nats.replicas is %v, but the volumes %s-* are those of %d: a server alone and a cluster do not read each other's streams; back up the log, delete these claims, and install again" $nats.replicas $claim (ternary 1 3 (empty $third))) -}}
{{- end -}}
{{- include "botplatform.validateVolumes" . -}}
{{- if and $nats.serviceAccount.create $nats.serviceAccount.name -}}
{{- fail (printf "nats.serviceAccount.name is %s, an account that exists already: set serviceAccount.create to false" $nats.serviceAccount.name) -}}
{{- end -}}
{{- $bus := .Values.config.bus | default dict -}}
{{- $wanted := mul (int64 ($bus.max_bytes | default 2147483648)) (ternary 1 2 (eq (toString $bus.by_type) "false")) -}}
{{- if gt $wanted (include "botplatform.bytes" $nats.maxFileStore | int64) -}}
{{- fail (printf "nats.maxFileStore is %s, but the log and its copy by type may take %d bytes together: raise it and nats.persistence.size, or lower config.bus.max_bytes" $nats.maxFileStore $wanted) -}}
{{- end -}}
{{- if gt (include "botplatform.bytes" $nats.maxFileStore | int64) (include "botplatform.bytes" $nats.persistence.size | int64) -}}
{{- fail (printf "nats.maxFileStore is %s, but nats.persistence.size is %v: a server whose disk is full stops storing orders as well; raise the size, or lower maxFileStore and config.bus.max_bytes" $nats.maxFileStore $nats.persistence.size) -}}
{{- end -}}
{{- if $nats.external.url -}}
{{- fail "nats.external.url is set, but nats.enabled is true: set it to false to use the server elsewhere" -}}
{{- end -}}
{{- else -}}
{{- if not $nats.external.url -}}
{{- fail "nats.enabled is false: set nats.external.url to the address of the server, for example nats://nats.nats.svc:4222" -}}
{{- end -}}
{{- if regexMatch "://[^/,]*@" $nats.external.url -}}
{{- fail "nats.external.url holds a user or password, and is kept in a ConfigMap: take it out, and set nats.external.auth and nats.external.existingSecret" -}}
{{- end -}}
{{- if and (ne $nats.external.auth "none") (not $nats.external.existingSecret) -}}
{{- fail (printf "nats.external.auth is %s: set nats.external.existingSecret to the Secret with what each user authenticates with" $nats.external.auth) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What a StatefulSet cannot change: Kubernetes would refuse it in words that say nothing about the way out. */ -}}
{{- define "botplatform.validateVolumes" -}}
{{- $p := .Values.nats.persistence -}}
{{- $name := include "botplatform.name" (dict "root" . "component" "nats") -}}
{{- $there := lookup "apps/v1" "StatefulSet" .Release.Namespace $name -}}
{{- if $there -}}
{{- $claims := $there.spec.volumeClaimTemplates | default list -}}
{{- if ne (empty $claims) (not $p.enabled) -}}
{{- fail (printf "nats.persistence.enabled is %v, but the StatefulSet %s was made otherwise, and its volumes cannot be changed: back up the log, delete the StatefulSet, upgrade, and restore" $p.enabled $name) -}}
{{- end -}}
{{- if $claims -}}
{{- $claim := (first $claims).spec -}}
{{- $size := $claim.resources.requests.storage -}}
{{- if ne (include "botplatform.bytes" $size) (include "botplatform.bytes" $p.size) -}}
{{- fail (printf "nats.persistence.size is %v, but the StatefulSet %s has volumes of %s: patch its claims, delete it with --cascade=orphan, and upgrade again (see Upgrade in docs/operations.md)" $p.size $name $size) -}}
{{- end -}}
{{- if and $p.storageClassName (ne $p.storageClassName ($claim.storageClassName | default "")) -}}
{{- fail (printf "nats.persistence.storageClassName is %s, but the StatefulSet %s has volumes of another class: back up the log, install anew, and restore" $p.storageClassName $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "botplatform.validateDatabase" -}}
{{- $database := .Values.database -}}
{{- if $database.existingSecret -}}
{{- if not $database.key -}}
{{- fail "database.key is empty: name the key of database.existingSecret that holds the address of the database" -}}
{{- end -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace $database.existingSecret -}}
{{- if and $secret (not (get ($secret.data | default dict) $database.key)) -}}
{{- fail (printf "the Secret %s of database.existingSecret has no %s, or an empty one: put postgresql://user:password@host:5432/database there, or set database.key" $database.existingSecret $database.key) -}}
{{- end -}}
{{- else if or $database.tlsSecret $database.to -}}
{{- fail "database.tlsSecret or database.to is set, but database.existingSecret is not: it names the Secret with the address of the database" -}}
{{- end -}}
{{- end -}}

{{- /* The address of the collector is opened in the network and looked at by the test: it is known to the chart alone. */ -}}
{{- define "botplatform.validateTracing" -}}
{{- if regexMatch "://[^/]*@" .Values.tracing.endpoint -}}
{{- fail "tracing.endpoint holds a user or password, which everybody reads who sees a pod: take it out, and give OTEL_EXPORTER_OTLP_HEADERS from a Secret by defaults.extraEnvFrom" -}}
{{- end -}}
{{- $tracing := .Values.config.tracing | default dict -}}
{{- if $tracing.endpoint -}}
{{- fail "config.tracing.endpoint is made by the chart: set tracing.endpoint to the address of the collector" -}}
{{- end -}}
{{- if and (eq ($tracing.protocol | default "") "grpc") .Values.jaeger.enabled (not .Values.tracing.endpoint) -}}
{{- fail "config.tracing.protocol is grpc, but Jaeger is reached over HTTP: take it out, or set tracing.endpoint to a collector of your own" -}}
{{- end -}}
{{- end -}}

{{- /* A dict of root, component, key (what to call it) and settings. */ -}}
{{- define "botplatform.validateReplicas" -}}
{{- $s := .settings -}}
{{- if and $s.serviceAccount.create $s.serviceAccount.name -}}
{{- fail (printf "%s.serviceAccount.name is %s, an account that exists already: set serviceAccount.create to false" .key $s.serviceAccount.name) -}}
{{- end -}}
{{- $scaled := and (($s.autoscaling | default dict).enabled) (ne .root.Values.autoscaling.kind "none") -}}
{{- $shared := has .component (list "market-data" "signals" "strategy" "execution") -}}
{{- $shares := include "botplatform.shares" . | int -}}
{{- if $s.enabled -}}
{{- $starts := mul (int $s.startupProbe.periodSeconds) (int $s.startupProbe.failureThreshold) -}}
{{- if le (int $starts) (int $s.waitSeconds) -}}
{{- fail (printf "%s.startupProbe gives up after %d s, but waitSeconds lets the process wait for %v s first: raise startupProbe.failureThreshold, or lower waitSeconds" .key $starts $s.waitSeconds) -}}
{{- end -}}
{{- if and $s.persistence.enabled (or $scaled (gt (int $s.replicas) 1)) -}}
{{- fail (printf "%s has a volume, which belongs to one process: it can have one replica, and nothing may scale it" .key) -}}
{{- end -}}
{{- if and (eq .component "venue") (gt (int $s.replicas) 1) -}}
{{- fail "venue.replicas is above 1: there is one book" -}}
{{- end -}}
{{- if and (eq .component "storage") (not (include "botplatform.storesElsewhere" .)) (or $scaled (gt (int $s.replicas) 1)) -}}
{{- fail "engines.storage writes to SQLite: it can have one replica, and nothing may scale it; with database.existingSecret a second one stands by" -}}
{{- end -}}
{{- if and (eq .component "storage") $s.persistence.enabled (not $s.persistence.existingClaim) (regexMatch "^[0-9]+([MGT]i?)?$" (toString $s.persistence.size)) -}}
{{- $largest := (.root.Values.config.storage | default dict).max_bytes | default 3221225472 | int64 -}}
{{- if gt $largest (include "botplatform.bytes" $s.persistence.size | int64) -}}
{{- fail (printf "engines.storage.persistence.size is %s, but the event store may take %d bytes: raise it, or lower config.storage.max_bytes to about three quarters of it" $s.persistence.size $largest) -}}
{{- end -}}
{{- end -}}
{{- if and $scaled (not $shared) -}}
{{- fail (printf "%s.autoscaling.enabled: it has one active owner, further replicas only stand by; only market-data, signals, strategy and execution share their work" .key) -}}
{{- end -}}
{{- if and $scaled (gt (int $s.autoscaling.minReplicas) (int $s.autoscaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling.minReplicas is above maxReplicas" .key) -}}
{{- end -}}
{{- /* A feed that is not divided has one owner, beside whom a second one may stand by. */ -}}
{{- $most := ternary (max 2 $shares) $shares (eq .component "market-data") | int -}}
{{- if and $shared (gt (int (ternary ($s.autoscaling | default dict).minReplicas $s.replicas $scaled)) $most) -}}
{{- fail (printf "%s has more replicas than the %d shares that its work can be divided into: see config.bus.partitions and config.symbols" .key $most) -}}
{{- end -}}
{{- if and $scaled (ne .component "market-data") (gt (int $s.autoscaling.maxReplicas) $shares) -}}
{{- fail (printf "%s.autoscaling.maxReplicas is above config.bus.partitions, %d: further replicas would have nothing to do" .key $shares) -}}
{{- end -}}
{{- $kind := (.root.Values.config.exchange | default dict).kind | default "paper" -}}
{{- if and (eq .component "execution") (eq $kind "paper") (gt (int (ternary ($s.autoscaling | default dict).maxReplicas $s.replicas $scaled)) 1) -}}
{{- fail "config.exchange.kind is paper, which lives inside of one execution process: set engines.execution.autoscaling.enabled to false and replicas to 1, or config.exchange.kind to paper_venue" -}}
{{- end -}}
{{- end -}}
{{- end -}}
