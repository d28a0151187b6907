// Package mains imports what the main packages of Kubernetes' programs import for its effect, since none of them is in this
// program. What else they do, and what of it is done here, is a table of this package's test.
package mains

import (
	_ "time/tzdata" // time zones of CronJobs: there are no files of them

	_ "k8s.io/component-base/logs/json/register"          // the logging format json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // rest_client_*, workqueue_*
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
)
