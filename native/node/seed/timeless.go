package seed

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"sandkube/node/cluster"
)

// kinds are the folders of the datastore that a cluster begins with. Each has something in it.
var kinds = []string{
	"apiregistration.k8s.io/apiservices",
	"clusterrolebindings",
	"clusterroles",
	"flowschemas",
	"ipaddresses",
	"namespaces",
	"priorityclasses",
	"prioritylevelconfigurations",
	"ranges",
	"rolebindings",
	"roles",
	"servicecidrs",
	"services/specs",
}

// ofOneCluster are folders with what one cluster alone has: its certificates, its processes, its events.
var ofOneCluster = []string{
	"configmaps",
	"endpointslices",
	"events",
	"health", // kine's own, a key and no folder
	"leases",
	"masterleases",
	"services/endpoints",
}

// kindOf is the folder that a key is in; shared says whether it is one of those that a cluster begins with.
func kindOf(key string) (kind string, shared bool, err error) {
	path := strings.TrimPrefix(key, "/registry/") + "/"
	in := func(kind string) bool { return strings.HasPrefix(path, kind+"/") }
	if at := slices.IndexFunc(kinds, in); at >= 0 {
		return kinds[at], true, nil
	}
	if at := slices.IndexFunc(ofOneCluster, in); at >= 0 {
		return ofOneCluster[at], false, nil
	}
	return "", false, fmt.Errorf("it is not known whether clusters share %s", key)
}

// epoch is when everything in a seed was made; the same as in the archives that are built.
var epoch = metav1.NewTime(time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC))

// space is the one of the UIDs: each is made of its object's key (RFC 9562, version 5).
var space = uuid.NewSHA1(uuid.NameSpaceURL, []byte("sandkube/seed"))

// timeless returns a value with the times and UIDs of a seed; complete says that its status was written, if it has one.
func timeless(key string, value []byte) (changed []byte, complete bool, err error) {
	for _, scheme := range []*runtime.Scheme{legacyscheme.Scheme, aggregator.Scheme} {
		var codec runtime.Serializer = protobuf.NewSerializer(scheme, scheme)
		if bytes.HasPrefix(value, []byte("{")) {
			codec = json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{})
		}
		object, _, err := codec.Decode(value, nil, nil)
		if runtime.IsNotRegisteredError(err) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if err := reset(key, object); err != nil {
			return nil, false, err
		}
		var encoded bytes.Buffer
		err = codec.Encode(object, &encoded)
		return encoded.Bytes(), hasStatus(object), err
	}
	return nil, false, errors.New("it is of no kind that is known")
}

// ofTheAPI is the Service in front of the API server.
const ofTheAPI = "/registry/services/specs/default/kubernetes"

func reset(key string, object runtime.Object) error {
	stopClocks(reflect.ValueOf(object))
	if service, is := object.(*corev1.Service); is && key == ofTheAPI {
		for at := range service.Spec.Ports { // that of the API server which was asked: any that was free
			service.Spec.Ports[at].TargetPort = intstr.FromInt32(int32(cluster.Default.APIPort))
		}
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	if accessor.GetUID() != "" {
		accessor.SetUID(types.UID(uuid.NewSHA1(space, []byte(key)).String()))
	}
	return nil
}

// stopClocks sets every time below a value that is set.
func stopClocks(value reflect.Value) {
	if !value.IsValid() {
		return
	}
	if value.Type() == reflect.TypeFor[metav1.Time]() {
		if one := value.Addr().Interface().(*metav1.Time); !one.IsZero() {
			*one = epoch
		}
		return
	}
	switch value.Kind() {
	case reflect.Pointer, reflect.Interface:
		stopClocks(value.Elem())
	case reflect.Struct:
		for at := range value.NumField() {
			if value.Type().Field(at).IsExported() {
				stopClocks(value.Field(at))
			}
		}
	case reflect.Slice:
		for at := range value.Len() {
			stopClocks(value.Index(at))
		}
	}
}

// hasStatus says whether an object whose kind has conditions has one.
func hasStatus(object runtime.Object) bool {
	status := reflect.ValueOf(object).Elem().FieldByName("Status")
	if !status.IsValid() || status.Kind() != reflect.Struct {
		return true
	}
	conditions := status.FieldByName("Conditions")
	switch object.GetObjectKind().GroupVersionKind().Kind {
	case "APIService", "FlowSchema", "ServiceCIDR":
		return conditions.Len() > 0
	}
	return true
}
