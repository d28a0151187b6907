package policy

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Reason is that of the event of a policy that is not obeyed.
const Reason = "NotEnforced"

// complaints are events about policies, each said once.
type complaints struct {
	client kubernetes.Interface
	said   map[types.UID]string
}

func newComplaints(client kubernetes.Interface) *complaints {
	return &complaints{client: client, said: map[types.UID]string{}}
}

// forget has everything be said again.
func (c *complaints) forget() { clear(c.said) }

// say tells of each policy why it is not obeyed.
func (c *complaints) say(ctx context.Context, policies []*networking.NetworkPolicy, why string) error {
	var problems []error
	for _, each := range policies {
		if c.said[each.UID] == why {
			continue
		}
		event := event(each, "Not enforced: "+why)
		if _, err := c.client.CoreV1().Events(each.Namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil {
			problems = append(problems, fmt.Errorf("event of %s/%s: %w", each.Namespace, each.Name, err))
			continue
		}
		c.said[each.UID] = why
	}
	return errors.Join(problems...)
}

func event(of *networking.NetworkPolicy, message string) *v1.Event {
	now := metav1.Now()
	return &v1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: of.Name + ".", Namespace: of.Namespace},
		InvolvedObject: v1.ObjectReference{
			APIVersion: networking.SchemeGroupVersion.String(), Kind: "NetworkPolicy",
			Namespace: of.Namespace, Name: of.Name, UID: of.UID, ResourceVersion: of.ResourceVersion,
		},
		Type: v1.EventTypeWarning, Reason: Reason, Message: message,
		Source:         v1.EventSource{Component: "sandkube-policy"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
}
