package oci

import (
	"encoding/json"
	"maps"
	"runtime"
	"strconv"
	"time"
)

// Names that CRIU's tools know: checkpointctl/lib/annotations.go and CRI-O.
const (
	// annotationCRIO makes CRI-O take an image for a checkpoint that it can
	// restore, so only images that hold all memory in the standard layer have
	// it.
	annotationCRIO = "io.kubernetes.cri-o.annotations.checkpoint.name"

	annotationEngine         = "org.criu.checkpoint.engine.name"
	annotationName           = "org.criu.checkpoint.container.name"
	annotationPod            = "org.criu.checkpoint.pod.name"
	annotationPodNamespace   = "org.criu.checkpoint.pod.namespace"
	annotationPodUID         = "org.criu.checkpoint.pod.uid"
	annotationRootfsName     = "org.criu.checkpoint.rootfsImageName"
	annotationRootfsAsked    = "org.criu.checkpoint.rootfsImageUserRequested"
	annotationRootfsSha      = "org.criu.checkpoint.rootfsImageSha"
	annotationRootfsID       = "org.criu.checkpoint.rootfsImageID"
	annotationRuntime        = "org.criu.checkpoint.runtime.name"
	annotationRuntimeVersion = "org.criu.checkpoint.runtime.version"
	annotationCRIU           = "org.criu.checkpoint.criu.version"
	annotationArch           = "org.criu.checkpoint.host.arch"
	annotationKernel         = "org.criu.checkpoint.host.kernel"

	criName      = "io.kubernetes.cri.container-name"
	criPod       = "io.kubernetes.cri.sandbox-name"
	criNamespace = "io.kubernetes.cri.sandbox-namespace"
	criUID       = "io.kubernetes.cri.sandbox-uid"
)

// Origin is where a checkpoint was made, and of what. Empty fields are left out
// of the image.
type Origin struct {
	Namespace, ID string
	Runtime       string // name of the runtime for containerd
	Image         string // name of the container's image
	ImageDigest   string // its manifest or index
	Created       time.Time
	Spec          []byte // config.json of the bundle

	CRIUVersion, Kernel, RuntimeVersion string
}

// configDump is config.dump: checkpointctl's ContainerConfig.
type configDump struct {
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	RootfsImage     string    `json:"rootfsImage,omitempty"`
	RootfsImageRef  string    `json:"rootfsImageRef,omitempty"`
	RootfsImageName string    `json:"rootfsImageName,omitempty"`
	OCIRuntime      string    `json:"runtime,omitempty"`
	CreatedTime     time.Time `json:"createdTime"`
	CheckpointedAt  time.Time `json:"checkpointedTime"`
	RestoredAt      time.Time `json:"restoredTime"`
	Restored        bool      `json:"restored"`
}

func (o *Origin) configDump(at time.Time, name string) ([]byte, error) {
	return json.Marshal(configDump{
		ID: o.ID, Name: name, RootfsImage: o.Image, RootfsImageName: o.Image, RootfsImageRef: o.ImageDigest,
		OCIRuntime: o.Runtime, CreatedTime: o.Created, CheckpointedAt: at,
	})
}

// specDump returns the spec with a name for the container: tools look for it
// where the CRI puts it. It also returns the annotations.
func (o *Origin) specDump() ([]byte, map[string]string, error) {
	spec := map[string]json.RawMessage{}
	if err := json.Unmarshal(o.Spec, &spec); err != nil {
		return nil, nil, err
	}
	annotations := map[string]string{}
	if raw, ok := spec["annotations"]; ok {
		if err := json.Unmarshal(raw, &annotations); err != nil {
			return nil, nil, err
		}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	if annotations[criName] == "" {
		annotations[criName] = o.ID
	}
	raw, err := json.Marshal(annotations)
	if err != nil {
		return nil, nil, err
	}
	spec["annotations"] = raw
	b, err := json.Marshal(spec)
	return b, annotations, err
}

// annotations of the manifest; spec are those of the container, chain is the
// place in it.
func (o *Origin) annotations(cp *Checkpoint, spec map[string]string, chain int) map[string]string {
	all := map[string]string{
		AnnotationVersion: formatVersion, AnnotationSequence: Tag(cp.Sequence), AnnotationChain: strconv.Itoa(chain),
		AnnotationContainer: o.ID, AnnotationNamespace: o.Namespace,
		annotationEngine: "containerd", annotationName: spec[criName], annotationPod: spec[criPod],
		annotationPodNamespace: spec[criNamespace], annotationPodUID: spec[criUID],
		annotationRootfsName: o.Image, annotationRootfsAsked: o.Image,
		annotationRootfsSha: o.ImageDigest, annotationRootfsID: o.ImageDigest,
		annotationRuntime: o.Runtime, annotationRuntimeVersion: o.RuntimeVersion,
		annotationCRIU: o.CRIUVersion, annotationArch: runtime.GOARCH, annotationKernel: o.Kernel,
	}
	if chain == 0 {
		all[annotationCRIO] = spec[criName]
	}
	maps.Copy(all, cp.Annotations)
	maps.DeleteFunc(all, func(_, v string) bool { return v == "" })
	return all
}
