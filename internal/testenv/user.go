package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// lesserUser is for servers that refuse to run as root: where we are root, it
// gives the folder to the account of that name (to nobody, if there is none)
// and returns the attributes by which a child runs as it.
func lesserUser(name, dir string) (attributes *syscall.SysProcAttr, account string, err error) {
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{}, "", nil
	}
	found, err := user.Lookup(name)
	if err != nil {
		found, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, "", fmt.Errorf("find a user to run as: %w", err)
	}
	uid, errUID := strconv.ParseUint(found.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(found.Gid, 10, 32)
	if err := errors.Join(errUID, errGID); err != nil {
		return nil, "", fmt.Errorf("user %s: %w", found.Username, err)
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return nil, "", fmt.Errorf("give %s its folder: %w", found.Username, err)
	}
	credential := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return &syscall.SysProcAttr{Credential: credential}, found.Username, nil
}
