// Hadoop's file system shell behind a port of 127.0.0.1: a JVM takes longer to start than a command of it.
//   FsShells PORT
// A request is lines: the user (empty: that of this process), files for output and errors, the number of words, a word each. A word `--`
// stands between commands. The answer is the exit code of the first command that fails, or 0.
import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.security.PrivilegedExceptionAction;
import java.util.*;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.*;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.util.ToolRunner;

public class FsShells {
  public static void main(String[] a) throws Exception {
    UserGroupInformation.setConfiguration(new Configuration());
    PrintStream out = System.out, err = System.err;
    try (ServerSocket port = new ServerSocket(Integer.parseInt(a[0]), 50, InetAddress.getByName("127.0.0.1"))) {
      while (true) {
        try (Socket client = port.accept()) {
          answer(client);
        } catch (Exception e) {
          e.printStackTrace(err);
        } finally {
          System.setOut(out);
          System.setErr(err);
        }
      }
    }
  }

  static void answer(Socket client) throws Exception {
    BufferedReader in = new BufferedReader(new InputStreamReader(client.getInputStream(), StandardCharsets.UTF_8));
    String user = in.readLine();
    if (user == null) return; // somebody looked whether the port is open
    try (PrintStream out = new PrintStream(in.readLine()); PrintStream err = new PrintStream(in.readLine())) {
      int words = Integer.parseInt(in.readLine());
      List<List<String>> commands = new ArrayList<>(List.of(new ArrayList<>()));
      for (; words > 0; words--) {
        String word = in.readLine();
        if (word.equals("--")) commands.add(new ArrayList<>());
        else commands.get(commands.size() - 1).add(word);
      }
      System.setOut(out);
      System.setErr(err);
      UserGroupInformation as = user(user);
      int code = as.doAs((PrivilegedExceptionAction<Integer>) () -> run(commands));
      FileSystem.closeAllForUGI(as); // the next request may have other settings
      client.getOutputStream().write((code + "\n").getBytes(StandardCharsets.UTF_8));
    }
  }

  static UserGroupInformation user(String name) throws Exception {
    if (name.isEmpty()) return UserGroupInformation.getLoginUser();
    if (!UserGroupInformation.isSecurityEnabled()) return UserGroupInformation.createRemoteUser(name);
    return UserGroupInformation.getUGIFromTicketCache(System.getenv("LAB") + "/krb/cc", name);
  }

  static int run(List<List<String>> commands) throws Exception {
    for (List<String> command : commands) {
      int code = ToolRunner.run(new Configuration(), new FsShell(), command.toArray(new String[0]));
      if (code != 0) return code;
    }
    return 0;
  }
}
