// Package services makes Kubernetes Services reachable on a node whose network
// stack has no usable netfilter: it owns each service address on one device and
// forwards in user space.
//
// An address on lo, where the stack forwards, or on the bridge of the pods is reachable from every network namespace that routes
// through the node, from the node itself and from a pod that is its own
// endpoint, so one listener a service port serves all of them. Listeners are
// bound to single addresses, never to 0.0.0.0: programs of the node and pods
// on the host network keep the same port on theirs.
//
// A port without ready endpoints has no listener. The kernel then answers a
// TCP connection with a reset and a UDP packet with "port unreachable", which
// is what kube-proxy's REJECT rules do.
//
// Where two ask for one place, a ClusterIP goes before a node port, a load
// balancer, an external address and a host port, whatever their names. No
// address of the ranges of pods and Services is served for another than its
// owner, and none of the node's own ports. What one client can take is bounded: flows.go, places.go.
//
// What differs from kube-proxy: an endpoint sees the node's address instead of
// the client's, and a connection is accepted before its endpoint has been
// reached. A traffic policy Local without endpoints on the node refuses
// instead of dropping, and so does a load balancer for a client that is none of
// its sources. SCTP is not served.
package services
