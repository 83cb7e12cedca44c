package image

import (
	"context"
	"path/filepath"
)

// digestsFile is in a home, and has what its images, or those of others, were
// digested to: a large one is read once, not at each launch.
const digestsFile = "digests.json"

// digested is what the files of an image were digested to, and its disk's trace
// then.
type digested struct {
	File   fileTrace `json:"file"`
	Digest string    `json:"digest"`
}

// digestOnce digests an image's files as they are stored, unless that was done
// since its disk has become what it is.
func (s *Files) digestOnce(ctx context.Context, dir string, r record, disk fileTrace) (string, error) {
	s.digesting.Lock()
	defer s.digesting.Unlock()
	if s.digests == nil {
		s.digests = s.rememberedDigests()
	}
	if known, ok := s.digests[dir]; ok && disk.same(known.File) {
		return known.Digest, nil
	}
	files := []string{r.Disk}
	for _, f := range []string{r.Boot.Kernel, r.Boot.Initrd} {
		if f != "" {
			files = append(files, f)
		}
	}
	digest, err := digestFiles(ctx, dir, files)
	if err != nil {
		return "", err
	}
	s.digests[dir] = digested{disk, digest}
	s.rememberDigest(ctx, dir)
	return digest, nil
}

// rememberedDigests reads what is remembered. Damaged, it is nothing.
func (s *Files) rememberedDigests() map[string]digested {
	all := make(map[string]digested)
	if readJSON(filepath.Join(s.home, digestsFile), &all) != nil {
		return make(map[string]digested)
	}
	return all
}

// rememberDigest has the digest of an image be known to later calls, and forgets
// images that are gone. If that fails, they digest it anew.
func (s *Files) rememberDigest(ctx context.Context, dir string) {
	if s.prepare() != nil {
		return
	}
	l, err := acquire(ctx, filepath.Join(s.home, "lock", digestsFile), true)
	if err != nil {
		return
	}
	defer l.release()
	all := s.rememberedDigests()
	all[dir] = s.digests[dir]
	for dir := range all {
		if !exists(dir) {
			delete(all, dir)
		}
	}
	_ = writeJSON(filepath.Join(s.home, digestsFile), all, 0o600)
}
