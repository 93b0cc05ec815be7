package e2e

import (
	"context"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// taskState is what the daemon says of a task.
type taskState struct {
	pid     int
	stopped bool
	exit    int
}

// task asks the daemon, as ctr would, but also for the exit status, which ctr
// shows to the one who waits only.
func (c *container) task() taskState {
	c.t.Helper()
	conn, err := grpc.NewClient("unix://"+c.e.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(c.t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), c.e.Namespace), patience)
	defer cancel()
	r, err := tasks.NewTasksClient(conn).Get(ctx, &tasks.GetRequest{ContainerID: c.id})
	require.NoError(c.t, err)
	return taskState{
		pid: int(r.Process.Pid), stopped: r.Process.Status == tasktypes.Status_STOPPED, exit: int(r.Process.ExitStatus),
	}
}
