// Package system has the system pods: what a cluster has beside the node, as pods like any other. Each part is a file of objects,
// by whose name it is disabled.
package system

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sandkube/node/manifests"
	"sandkube/node/pki"
)

// Part is one of them.
type Part struct {
	Name     string
	Disabled bool
	Objects  manifests.Set
	// Definitions are kinds that it needs. They come first, unless they are there, and stay: others may have made them, or use them.
	Definitions []manifests.Set
	// Served are its APIServices. Each is applied when the rest is there: as long as the API server does not reach one, whoever
	// asks it for all kinds that there are gets an error, and namespaces do not go.
	Served manifests.Set
}

// Read returns the parts in a folder, with the definitions that another folder has for each, in a folder of its name.
func Read(folder, definitions string, disabled func(name string) bool) ([]Part, error) {
	sets, err := manifests.Read(folder)
	if err != nil {
		return nil, err
	}
	var all []Part
	for _, set := range sets {
		name := strings.TrimSuffix(set.Name, ".yaml")
		one := Part{Name: name, Disabled: disabled(name), Objects: manifests.Set{Name: set.Name}, Served: manifests.Set{Name: set.Name}}
		if !one.Disabled {
			if one.Definitions, err = manifests.Read(filepath.Join(definitions, name)); err != nil {
				return nil, err
			}
		}
		for _, object := range set.Objects {
			if object.GetKind() == "APIService" {
				one.Served.Objects = append(one.Served.Objects, object)
			} else {
				one.Objects.Objects = append(one.Objects.Objects, object)
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// All are the objects of a part.
func (p Part) All() manifests.Set {
	return manifests.Set{Name: p.Objects.Name, Objects: slices.Concat(p.Objects.Objects, p.Served.Objects)}
}

// Certify gives each APIService a certificate of the cluster's authority: what it is served with is a Secret, SERVICE-tls,
// before all other objects, and whom to believe is in the APIService.
func (p *Part) Certify(ca pki.Pair, now time.Time) error {
	for _, object := range p.Served.Objects {
		service, _, err := unstructured.NestedStringMap(object.Object, "spec", "service")
		if err != nil {
			return fmt.Errorf("%s: %w", p.Served.Name, err)
		}
		name, namespace := service["name"], service["namespace"]
		host := name + "." + namespace + ".svc"
		pair, err := ca.Issue(pki.Subject{Name: host, DNSNames: []string{host}}, now)
		if err != nil {
			return err
		}
		secret := map[string]any{
			"apiVersion": "v1",
			"kind":       "Secret",
			"type":       "kubernetes.io/tls",
			"metadata":   map[string]any{"name": name + "-tls", "namespace": namespace},
			"data":       map[string]any{"tls.crt": encoded(pair.CertificatePEM()), "tls.key": encoded(pair.KeyPEM())},
		}
		p.Objects.Objects = slices.Insert(p.Objects.Objects, 0, &unstructured.Unstructured{Object: secret})
		if err := unstructured.SetNestedField(object.Object, encoded(ca.CertificatePEM()), "spec", "caBundle"); err != nil {
			return fmt.Errorf("%s: %w", p.Served.Name, err)
		}
	}
	return nil
}

func encoded(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// Workload is what runs pods: a Deployment or a DaemonSet.
type Workload struct{ Kind, Namespace, Name string }

// Workloads are those of a part, which is there when they are.
func (p Part) Workloads() []Workload {
	var all []Workload
	for _, object := range p.Objects.Objects {
		if kind := object.GetKind(); kind == "Deployment" || kind == "DaemonSet" {
			all = append(all, Workload{kind, object.GetNamespace(), object.GetName()})
		}
	}
	return all
}
