"""nbgrader's settings for this course; solutions/README.md is the instructor's guide."""

c = get_config()  # noqa: F821 - nbgrader defines it

c.CourseDirectory.course_id = "minivdm"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "exercises"
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError()"}
c.ClearSolutions.text_stub = "*Your answer here.*"
c.ExecutePreprocessor.timeout = 120  # seconds a cell of a submission may take

# Files from a learning platform, as `ada-06_samplers.ipynb` in downloaded/06_samplers/archive. A name may hold anything
# that a file name may, hyphens and spaces too.
c.FileNameCollectorPlugin.named_regexp = r".*[/\\](?P<student_id>[^/\\]+?)-(?P<file_id>\d\d_\w+|capstone)\.ipynb"
