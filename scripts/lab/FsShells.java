// Several commands of Hadoop's file system shell by one JVM, which takes longer to start than they do; `--` is between them:
//   FsShells -mkdir /a -- -chmod 700 /a
// Ends at the first that fails, with its exit code.
import java.util.*;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FsShell;
import org.apache.hadoop.util.ToolRunner;

public class FsShells {
  public static void main(String[] a) throws Exception {
    List<String> command = new ArrayList<>();
    for (String word : a) {
      if (!word.equals("--")) {
        command.add(word);
        continue;
      }
      run(command);
      command.clear();
    }
    run(command);
    System.exit(0);
  }

  static void run(List<String> command) throws Exception {
    FsShell shell = new FsShell(new Configuration());
    try {
      int code = ToolRunner.run(shell, command.toArray(new String[0]));
      if (code != 0) System.exit(code);
    } finally {
      shell.close();
    }
  }
}
