package logs

import (
	"flag"
	"io"
	"log"

	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
)

// Catch sends what libraries log to one writer.
func Catch(output io.Writer) {
	flags := flag.NewFlagSet("klog", flag.PanicOnError)
	klog.InitFlags(flags)
	for _, each := range []string{"-logtostderr=false", "-one_output=true", "-stderrthreshold=FATAL"} {
		if err := flags.Parse([]string{each}); err != nil {
			panic(err)
		}
	}
	klog.SetOutput(output)
	logrus.SetOutput(output)
	log.SetOutput(output)
}
