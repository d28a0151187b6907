module sandkube/goroutines

go 1.26.0
