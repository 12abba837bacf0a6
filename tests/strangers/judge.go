// Judges trees with golang.org/x/mod/sumdb: a document on standard input, for each tree a list of what is wrong with it.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type tree struct {
	Vkey        string
	Note        string
	Tiles       map[string][]byte
	Leaves      map[string][]byte
	Inclusion   map[string][][]byte
	Consistency map[string]struct {
		Root  []byte
		Proof [][]byte
	}
}

type reader map[string][]byte

func (r reader) Height() int                   { return 8 }
func (r reader) SaveTiles([]tlog.Tile, [][]byte) {}

func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, one := range tiles {
		// C2SP tlog-tiles has the one height 8 and leaves it out of the path.
		data, ok := r[strings.Replace(one.Path(), "tile/8/", "tile/", 1)]
		if !ok {
			return nil, fmt.Errorf("no tile %s", one.Path())
		}
		found = append(found, data)
	}
	return found, nil
}

func hash(raw []byte) (tlog.Hash, error) {
	var h tlog.Hash
	if len(raw) != len(h) {
		return h, fmt.Errorf("%d bytes are no hash", len(raw))
	}
	copy(h[:], raw)
	return h, nil
}

func hashes(raws [][]byte) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, raw := range raws {
		h, err := hash(raw)
		if err != nil {
			return nil, err
		}
		found = append(found, h)
	}
	return found, nil
}

func same(a, b []tlog.Hash) bool {
	return fmt.Sprint(a) == fmt.Sprint(b)
}

func judge(t tree) []string {
	wrong := []string{}
	say := func(what string, err error) bool {
		if err != nil {
			wrong = append(wrong, what+": "+err.Error())
		}
		return err != nil
	}
	verifier, err := note.NewVerifier(t.Vkey)
	if say("key", err) {
		return wrong
	}
	opened, err := note.Open([]byte(t.Note), note.VerifierList(verifier))
	if say("note", err) {
		return wrong
	}
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if say("size", err) {
		return wrong
	}
	raw, err := base64.StdEncoding.DecodeString(lines[2])
	if say("root", err) {
		return wrong
	}
	root, err := hash(raw)
	if say("root", err) {
		return wrong
	}
	tiles := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, reader(t.Tiles))
	for at := int64(0); at < size; at += 256 {
		_, err := tiles.ReadHashes([]int64{tlog.StoredHashIndex(0, at)})
		say("tile", err)
	}
	whole, err := tlog.TreeHash(size, tiles)
	if !say("tree", err) && whole != root {
		say("tree", fmt.Errorf("another root"))
	}
	for text, leaf := range t.Leaves {
		index, _ := strconv.ParseInt(text, 10, 64)
		given, err := hashes(t.Inclusion[text])
		if say("record", err) {
			continue
		}
		say("record", tlog.CheckRecord(given, size, root, index, tlog.RecordHash(leaf)))
		own, err := tlog.ProveRecord(size, index, tiles)
		if !say("record", err) && !same(own, given) {
			say("record", fmt.Errorf("another proof"))
		}
	}
	for text, one := range t.Consistency {
		old, _ := strconv.ParseInt(text, 10, 64)
		given, err := hashes(one.Proof)
		if say("prefix", err) {
			continue
		}
		before, err := hash(one.Root)
		if say("prefix", err) {
			continue
		}
		say("prefix", tlog.CheckTree(given, size, root, old, before))
		own, err := tlog.ProveTree(size, old, tiles)
		if !say("prefix", err) && !same(own, given) {
			say("prefix", fmt.Errorf("another proof"))
		}
	}
	return wrong
}

func main() {
	var trees []tree
	decoder := json.NewDecoder(os.Stdin)
	if err := decoder.Decode(&trees); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	found := [][]string{}
	for _, one := range trees {
		found = append(found, judge(one))
	}
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(found); err != nil {
		os.Exit(1)
	}
	os.Stdout.Write(out.Bytes())
}
