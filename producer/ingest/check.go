package ingest

// Check reports what keeps a submission out whatever the limits of the moment:
// its form, its deadline, its model. Nothing is accepted.
func (in *Intake) Check(s Submission) error {
	t, err := in.newTask(s, in.d.Publisher.BrokerNow().UTC())
	if err != nil {
		return err
	}
	_, err = in.assign(s, t)
	return err
}
