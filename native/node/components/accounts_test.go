package components

import (
	"context"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestWhatAServerIsNotReadyForIsAskedAgain(t *testing.T) {
	kind := schema.GroupResource{Resource: "serviceaccounts"}
	early := apierrors.NewForbidden(kind, "default", errors.New("not yet ready to handle request"))
	never := apierrors.NewForbidden(kind, "default", errors.New("no"))
	there := apierrors.NewAlreadyExists(kind, "default")
	for _, each := range []struct {
		answers []error
		want    error
	}{
		{[]error{nil}, nil},
		{[]error{early, early, nil}, nil},
		{[]error{early, there}, nil},
		{[]error{never}, never},
	} {
		asked := 0
		err := created(t.Context(), func(context.Context) error {
			asked++
			return each.answers[asked-1]
		})
		if err != each.want || asked != len(each.answers) {
			t.Errorf("%v: %v after %d", each.answers, err, asked)
		}
	}
}
