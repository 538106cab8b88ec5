package middleware

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"slices"
)

// hasForm reports whether outer middleware has parsed a form that says anything.
// ParseForm leaves an empty one of a body that is none; so does MultipartReader.
func hasForm(r *http.Request) bool {
	return len(r.PostForm) > 0 || r.MultipartForm != nil && len(r.MultipartForm.Value)+len(r.MultipartForm.File) > 0
}

// encodeForm writes a parsed form down: three maps, each as the number of its
// names and, sorted, each name with the number of its values and the values. All
// have their lengths before them, so no two forms are written alike, and each
// tells its own end. A file stands there by its name, its header, its size and
// the SHA-256 of its content. A form of more than limit bytes is a
// [*http.MaxBytesError].
func encodeForm(r *http.Request, limit int64) ([]byte, error) {
	multi := r.MultipartForm
	if multi == nil {
		multi = &multipart.Form{}
	}
	if formSize(r.PostForm, multi) > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	buf := appendLists(nil, r.PostForm)
	buf = appendLists(buf, multi.Value) // in PostForm, too, where net/http has parsed it
	buf = binary.AppendUvarint(buf, uint64(len(multi.File)))
	for _, name := range slices.Sorted(maps.Keys(multi.File)) {
		buf = appendText(buf, name)
		buf = binary.AppendUvarint(buf, uint64(len(multi.File[name])))
		for _, file := range multi.File[name] {
			var err error
			if buf, err = appendFile(buf, file); err != nil {
				return nil, err
			}
		}
	}
	return buf, nil
}

// formSize is the least that the form took as a body: values with a byte between
// each two. Values of a multipart form stand in both maps.
func formSize(post map[string][]string, multi *multipart.Form) int64 {
	size := max(listsSize(post), listsSize(multi.Value))
	for _, files := range multi.File {
		for _, file := range files {
			size += file.Size + 1
		}
	}
	return size - 1
}

func listsSize(lists map[string][]string) (size int64) {
	for name, values := range lists {
		for _, value := range values {
			size += int64(len(name)+len(value)) + 1
		}
	}
	return size
}

func appendLists(buf []byte, lists map[string][]string) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(lists)))
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		buf = appendText(buf, name)
		buf = binary.AppendUvarint(buf, uint64(len(lists[name])))
		for _, value := range lists[name] {
			buf = appendText(buf, value)
		}
	}
	return buf
}

// appendFile reads the file, which is in memory or in a temporary one, in pieces.
func appendFile(buf []byte, header *multipart.FileHeader) ([]byte, error) {
	buf = appendLists(appendText(buf, header.Filename), header.Header)
	file, err := header.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBodyTaken, err) // outer middleware has removed it
	}
	digest := sha256.New()
	size, err := io.Copy(digest, file)
	_ = file.Close() // only read
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBodyTaken, err)
	}
	return digest.Sum(binary.AppendUvarint(buf, uint64(size))), nil //nolint:gosec // not negative
}
