// Command goroutines opens a redirected file and another one from many goroutines, whose stacks are small, grow and move.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

func check(path, expected string, depth int) {
	var frame [128]byte
	if depth > 0 {
		check(path, expected, depth-1)
		frame[depth%len(frame)] = 1
		runtime.KeepAlive(frame)
		return
	}
	data, err := os.ReadFile(path)
	if err != nil || string(data) != expected {
		fmt.Println("wrong:", path, string(data), err)
		os.Exit(1)
	}
}

func main() {
	folder := os.Args[1]
	named, plain := filepath.Join(folder, "named/file"), filepath.Join(folder, "plain")
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			for j := range 20 {
				check(named, "prepared\n", (i+j)%40)
				check(plain, "plain\n", (i*j)%40)
				if (i+j)%97 == 0 {
					runtime.GC()
				}
			}
		})
	}
	all.Wait()
	if len(os.Args) == 2 {
		if out, err := exec.Command(os.Args[0], folder, "again").CombinedOutput(); err != nil || string(out) != "ok\n" {
			fmt.Println("wrong:", string(out), err)
			os.Exit(1)
		}
	}
	fmt.Println("ok")
}
