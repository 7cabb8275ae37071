"""Small real networks for the tests of the report, and a text that would like to be a script."""

from rankscope.sweep import Job, RunFolder

HOSTILE = "</script><script>alert(1)</script>"


def small_jobs():
    """Two tasks, two gains, two samples; one task without spectra or trial, but with eigenvalues over epochs."""
    records = {"epochs": 40, "recorded_epochs": 12, "batch_size": 4}
    return [
        Job(
            task=task,
            network={"gain": gain, "hidden_size": 10},
            seed=seed,
            labels={"sample": sample},
            **options,
        )
        for seed, (task, gain, sample, options) in enumerate(
            (task, gain, sample, options)
            for task, options in (
                ("flipflop", {"training": records | {"learning_rate": 0.03}}),
                (
                    "fixed_point",
                    {
                        "training": records | {"eigenvalues": 3},
                        "measurements": ("norms", "evaluation", "shuffle", "outlier"),
                    },
                ),
            )
            for gain in (0.0, 0.8)
            for sample in (0, 1)
        )
    ]


def store(folder, jobs, description, skip=0):
    """Run jobs and store their results, except the last `skip`."""
    run = RunFolder(folder)
    run.prepare(jobs, description)
    for job in jobs[: len(jobs) - skip]:
        run.save(job.run())
    return run
