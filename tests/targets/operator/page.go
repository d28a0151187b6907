package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
)

// PageSpec is what a page says.
type PageSpec struct {
	Text string `json:"text,omitempty"`
}

// PageStatus tells where the text was put.
type PageStatus struct {
	ConfigMap string `json:"configMap,omitempty"`
}

// Page is an object of the tests: its text ends up in a ConfigMap of its name.
type Page struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              PageSpec   `json:"spec,omitempty"`
	Status            PageStatus `json:"status,omitempty"`
}

// DeepCopyObject makes another one.
func (p *Page) DeepCopyObject() runtime.Object {
	other := *p
	p.ObjectMeta.DeepCopyInto(&other.ObjectMeta)
	return &other
}

// PageList is several pages.
type PageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Page `json:"items"`
}

// DeepCopyObject makes another one.
func (l *PageList) DeepCopyObject() runtime.Object {
	other := PageList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&other.ListMeta)
	for each := range l.Items {
		other.Items = append(other.Items, *l.Items[each].DeepCopyObject().(*Page))
	}
	return &other
}

// newScheme knows Kubernetes' own kinds, and pages.
func newScheme() *runtime.Scheme {
	version := schema.GroupVersion{Group: "tests.sandkube.local", Version: "v1"}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		panic(err)
	}
	scheme.AddKnownTypes(version, &Page{}, &PageList{})
	metav1.AddToGroupVersion(scheme, version)
	return scheme
}
