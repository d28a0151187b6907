module sandkube/nettools

go 1.26.0

require (
	github.com/miekg/dns v1.1.67
	github.com/spf13/pflag v1.0.10
)

require (
	golang.org/x/mod v0.24.0 // indirect
	golang.org/x/net v0.40.0 // indirect
	golang.org/x/sync v0.14.0 // indirect
	golang.org/x/sys v0.33.0 // indirect
	golang.org/x/tools v0.33.0 // indirect
)
