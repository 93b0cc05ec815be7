package status

// Pod is the place of a container in Kubernetes.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Container string `json:"container"`
	// Sandbox is the ID of the container that holds the pod's namespaces.
	Sandbox string `json:"sandbox,omitempty"`
}

// PodOf reads the annotations that the CRI gives a container; nil if it is not
// one of a pod.
func PodOf(annotations map[string]string) *Pod {
	const cri = "io.kubernetes.cri."
	p := &Pod{
		Namespace: annotations[cri+"sandbox-namespace"], Name: annotations[cri+"sandbox-name"],
		UID: annotations[cri+"sandbox-uid"], Container: annotations[cri+"container-name"], Sandbox: annotations[cri+"sandbox-id"],
	}
	if p.Namespace == "" || p.Name == "" || p.UID == "" || p.Container == "" {
		return nil
	}
	return p
}
