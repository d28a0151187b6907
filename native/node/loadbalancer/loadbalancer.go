// Package loadbalancer gives Services of type LoadBalancer an address of a range of the cluster's own, and says so in their
// status: Kubernetes' controller for clouds, with a cloud that has nothing but addresses. Package services serves them.
//
// A Service with a loadBalancerClass is somebody else's. The controller's finalizer keeps a Service until its address is
// free again.
package loadbalancer

import (
	"context"
	"fmt"
	"net/netip"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/controllers/service"
	"k8s.io/component-base/metrics/prometheus/controllers"
)

const name = "sandkube"

// Run does so until ctx ends, with addresses of the range but its first and last, and of another range of IPv6 if there is one.
func Run(ctx context.Context, config *rest.Config, first, second netip.Prefix) error {
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return run(ctx, client, first, second)
}

func run(ctx context.Context, client kubernetes.Interface, first, second netip.Prefix) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	services := factory.Core().V1().Services()
	own := newPools(services.Lister(), first, second)
	controller, err := service.New(cloud{own}, client, services, factory.Core().V1().Nodes(), name, utilfeature.DefaultFeatureGate)
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	// One worker: two Services that ask for the same address do so one after the other.
	controller.Run(ctx, 1, controllers.NewControllerManagerMetrics(name))
	factory.Shutdown()
	return ctx.Err()
}

// cloud is one of load balancers and nothing else.
type cloud struct{ own pools }

func (cloud) Initialize(cloudprovider.ControllerClientBuilder, <-chan struct{}) {}
func (c cloud) LoadBalancer() (cloudprovider.LoadBalancer, bool)                { return balancers(c), true }
func (cloud) Instances() (cloudprovider.Instances, bool)                        { return nil, false }
func (cloud) InstancesV2() (cloudprovider.InstancesV2, bool)                    { return nil, false }
func (cloud) Zones() (cloudprovider.Zones, bool)                                { return nil, false }
func (cloud) Clusters() (cloudprovider.Clusters, bool)                          { return nil, false }
func (cloud) Routes() (cloudprovider.Routes, bool)                              { return nil, false }
func (cloud) ProviderName() string                                              { return name }
func (cloud) HasClusterID() bool                                                { return true }

// balancers are addresses: which endpoints are behind one is for package services to see.
type balancers struct{ own pools }

func (b balancers) GetLoadBalancer(_ context.Context, _ string, service *v1.Service) (*v1.LoadBalancerStatus, bool, error) {
	addresses := b.own.of(service)
	if len(addresses) == 0 {
		return nil, false, nil
	}
	return status(addresses), true, nil
}

func (balancers) GetLoadBalancerName(_ context.Context, _ string, service *v1.Service) string {
	return cloudprovider.DefaultLoadBalancerName(service)
}

func (b balancers) EnsureLoadBalancer(_ context.Context, _ string, service *v1.Service, _ []*v1.Node) (*v1.LoadBalancerStatus, error) {
	for _, port := range service.Spec.Ports {
		if port.Protocol == v1.ProtocolSCTP {
			return nil, fmt.Errorf("port %d: SCTP is not served here", port.Port)
		}
	}
	addresses, err := b.own.give(service)
	if err != nil {
		return nil, err
	}
	return status(addresses), nil
}

func (balancers) UpdateLoadBalancer(context.Context, string, *v1.Service, []*v1.Node) error {
	return nil
}

func (b balancers) EnsureLoadBalancerDeleted(_ context.Context, _ string, service *v1.Service) error {
	b.own.free(service)
	return nil
}

// status is all that the API server would make of it, so that the controller sees no difference later.
func status(addresses []netip.Addr) *v1.LoadBalancerStatus {
	mode := v1.LoadBalancerIPModeVIP
	made := &v1.LoadBalancerStatus{}
	for _, each := range addresses {
		made.Ingress = append(made.Ingress, v1.LoadBalancerIngress{IP: each.String(), IPMode: &mode})
	}
	return made
}
