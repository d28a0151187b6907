module sandkube/erofs

go 1.26.0

require github.com/erofs/go-erofs v0.3.1
