#!/usr/bin/env python3
"""What scripts/demo shows, small enough for every run, over a real S3 server."""
from box import S3Server, main
from whole_loop import Progress, make_source, model_path, run


def whole_loop_over_an_s3_server(box):
    source = make_source(box, ["/usr/include/linux"], 300, model_path(), odd_files=150)
    run(box, S3Server(box), source, Progress())


if __name__ == "__main__":
    main()
