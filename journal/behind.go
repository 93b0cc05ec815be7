package journal

// CommitBehind commits without waiting for the disk. In class Disk the batch is
// handed to another goroutine, unless that is busy with an earlier one; what is
// appended meanwhile makes the next batch, so that all who wait share one
// fdatasync. In the other classes it is Commit, which does not wait for a disk.
//
// It returns whether a commit is under way: when it has ended, well or not, ended
// is called in the other goroutine, where it must not block; CommitBehind is to
// be called again then, to learn how it went and to begin the next. Committed
// says how far commits have come. Errors are those of Commit, and as sticky.
func (j *Journal) CommitBehind(ended func()) (underWay bool, err error) {
	if j.opts.Durability != Disk {
		return false, j.Commit()
	}
	j.land(false)
	switch {
	case j.err != nil:
		return false, j.err
	case j.flying:
		return true, nil
	case !j.inBatch:
		return false, nil
	}
	if err := j.room(); err != nil {
		return false, err
	}
	j.depart(ended)
	return true, nil
}

// depart hands the batch over. The goroutine owns flight, active and seq until
// land has taken its result.
func (j *Journal) depart(ended func()) {
	j.flight.buf, j.batch.buf = j.batch.buf, j.flight.buf[:0]
	j.flight.base = j.batch.base
	j.batch.base = j.flight.end()
	j.flightLen, j.flightRecords = len(j.flight.buf), j.pending
	j.pending, j.inBatch = 0, false
	j.flying = true
	go func() {
		j.landed <- j.flush(&j.flight)
		ended()
	}()
}

// land takes the result of the commit under way, if it has ended or wait is set.
func (j *Journal) land(wait bool) {
	if !j.flying {
		return
	}
	var err error
	if wait {
		err = <-j.landed
	} else {
		select {
		case err = <-j.landed:
		default:
			return
		}
	}
	j.flying = false
	if err != nil {
		j.fail(err)
		return
	}
	j.flightLen = 0
	j.batchDone(&j.flightRecords)
}
