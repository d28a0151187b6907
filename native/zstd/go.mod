module sandkube/zstd

go 1.26.0

require github.com/klauspost/compress v1.19.2
